"""Trials side by side in worker processes of this machine; whatever becomes of one, the search goes on."""

import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process

import torch
from rich.text import Text

from perpixel.search.trial import Outcome, Reward, Task, evaluate

DIED = "the worker died: killed, crashed or out of memory"


class Worker(ABC):
    """One place where one trial at a time runs."""

    @property
    @abstractmethod
    def up(self) -> bool:
        """Whether it has started; trials submitted before wait."""

    @abstractmethod
    def submit(self, reward: Reward, task: Task) -> Future[Outcome]:
        """Begins a trial; the future raises what the trial raised."""

    @abstractmethod
    def kill(self) -> None:
        """Ends the worker, whatever it is doing."""

    @abstractmethod
    def died(self, error: BaseException) -> bool:
        """Whether a future's error says that the worker itself is gone."""


@dataclass
class _Running:
    place: int
    task: Task
    began: float | None = None

    @property
    def seconds(self) -> float:
        """Since its worker took it."""
        return 0.0 if self.began is None else time.monotonic() - self.began


class Workers:
    """Workers that try genotypes.

    A trial that raises, kills its worker or takes too long has reward 0 and keeps its error; a lost worker is replaced.

    Args:
        reward: importable, so that a worker finds it.
        start: makes the worker of a place, 0..count-1.
        count: how many.
        time_limit: seconds a trial may take once its worker is up; None waits.
    """

    def __init__(self, reward: Reward, start: Callable[[int], Worker], count: int, time_limit: float | None) -> None:
        self._reward, self._start, self._time_limit = reward, start, time_limit
        self._workers: dict[int, Worker] = {}
        self._idle = list(range(count))
        self._running: dict[Future[Outcome], _Running] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.kill()

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        return len(self._idle)

    @property
    def tasks(self) -> set[int]:
        """Numbers of the running trials."""
        return {running.task.number for running in self._running.values()}

    def submit(self, task: Task) -> None:
        """Begins a trial; a worker must be idle."""
        place = self._idle.pop(0)
        if place not in self._workers:
            self._workers[place] = self._start(place)
        future = self._workers[place].submit(self._reward, task)
        self._running[future] = _Running(place, task)

    def wait(self, seconds: float) -> list[tuple[int, Outcome]]:
        """The trials that ended within so many seconds, by number; returns as soon as there is one."""
        done, _ = wait(self._running, timeout=seconds, return_when=FIRST_COMPLETED)
        ended = [self._finish(future) for future in done]
        for running in self._running.values():
            if running.began is None and self._workers[running.place].up:
                running.began = time.monotonic()
        if self._time_limit is not None:
            late = [future for future, running in self._running.items() if running.seconds > self._time_limit]
            ended += [
                self._stop(future, f"it took more than {self._time_limit:g} s, the time limit") for future in late
            ]
        return ended

    def _finish(self, future: Future[Outcome]) -> tuple[int, Outcome]:
        running = self._running[future]
        error = future.exception()
        if error is None:
            del self._running[future]
            self._idle.append(running.place)
            return running.task.number, future.result()
        if self._workers[running.place].died(error):
            return self._stop(future, f"{DIED} ({error})")
        return self._end(future, told(error))

    def _stop(self, future: Future[Outcome], error: str) -> tuple[int, Outcome]:
        self._workers.pop(self._running[future].place).kill()
        return self._end(future, error)

    def _end(self, future: Future[Outcome], error: str) -> tuple[int, Outcome]:
        running = self._running.pop(future)
        self._idle.append(running.place)
        return running.task.number, Outcome(0.0, seconds=running.seconds, error=error)


def told(error: BaseException) -> str:
    """An error as it is kept: class and message, then where it was raised in the worker."""
    where = "" if error.__cause__ is None else f"\n{error.__cause__}"
    return Text.from_ansi(f"{type(error).__name__}: {error}{where}").plain  # Ray's errors are coloured


class LocalWorker(Worker):
    """A process of this machine, started afresh and not forked, so that threads and GPUs are its own.

    Args:
        place: of the worker; places take turns over the GPUs.
        count: workers that share the processor.
    """

    def __init__(self, place: int, count: int) -> None:
        threads = max(1, torch.get_num_threads() // count)
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(place, threads))
        self._process = self._pool.submit(os.getpid)

    @property
    def up(self) -> bool:
        """Whether the process has started."""
        return self._process.done()

    def submit(self, reward: Reward, task: Task) -> Future[Outcome]:
        """Begins a trial."""
        return self._pool.submit(evaluate, reward, task)

    def kill(self) -> None:
        """Ends the process."""
        # The future has an error only where the process is gone already.
        if self._process.exception() is None:
            with suppress(ProcessLookupError):  # it ended by itself in the meantime
                os.kill(self._process.result(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        self._pool.shutdown(wait=False)

    def died(self, error: BaseException) -> bool:
        """Whether the process is gone."""
        return isinstance(error, BrokenProcessPool)


def _begin(place: int, threads: int) -> None:
    """What a worker process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())


def _end_with_parent() -> None:
    """No worker outlives a search that was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
