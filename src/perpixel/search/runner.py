"""The search: propose, try side by side, learn in order, save; stop and go on at any moment."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perpixel.engine.interruption import Interruption
from perpixel.engine.steps import step_seed
from perpixel.errors import InputError
from perpixel.search.folder import SearchFolder, load_search, open_folder
from perpixel.search.report import write_report
from perpixel.search.settings import Search
from perpixel.search.space import Space
from perpixel.search.spaces import all_searches
from perpixel.search.state import SearchState, Trial
from perpixel.search.trial import Task
from perpixel.search.watch import Watch
from perpixel.search.workers import LocalWorker, Worker, Workers

LOOK = 0.5
"""Seconds between looks at the clock and at Ctrl-C."""

HOPELESS = 8
"""A search whose first so many trials all failed is stopped: the fault is not the genotypes'."""


def run_search(search: Search, out: Path, *, resume: bool = False, show: bool = True) -> SearchState:
    """Searches until all trials are done or the user stops it.

    After every ended trial the whole state is in `out`; whatever happens then, no more than the running trials is lost.

    Args:
        search: what and how.
        out: folder of the search; made here.
        resume: go on with the search in that folder.
        show: tells on the terminal how it goes; the page in `out` does so always.

    Raises:
        InputError: a folder with other files or of another search, or the first trials all failed.
    """
    folder, space = SearchFolder(out), search.space()
    state = SearchState(search.policy.build(space, search.seed))
    open_folder(folder, search, resume)
    if folder.state.is_file():
        state.load(folder.state)
    with (
        Interruption() as stop,
        Workers(search.reward(), worker_of(search), search.workers, search.time_limit) as workers,
        Watch(search, space, folder, show) as watch,
    ):
        began = time.monotonic() - state.seconds
        propose(search, state)
        while state.learned < search.trials and not stop.asked:
            for number in to_try(search, state, workers.tasks)[: workers.idle]:
                workers.submit(task_of(search, space, state, number))
            ended = workers.wait(LOOK)
            for number, outcome in ended:
                state.trials[number].outcome = outcome
            state.seconds = time.monotonic() - began
            if ended:
                learn(search, state)
                state.save(folder.state)
                _check(state, out)
            watch(state)
        watch.finish(state)
    return state


def load_run(out: Path) -> tuple[Search, SearchState]:
    """The settings and the state of the search in a folder, to look at.

    Raises:
        InputError: there is none, or of a kind that nobody has imported.
    """
    all_searches()
    search = load_search(out)
    state = SearchState(search.policy.build(search.space(), search.seed))
    state.load(SearchFolder(out).state)
    return search, state


def show_run(out: str | Path, baseline: str | Path | None = None) -> Path:
    """Writes the page of the search in a folder anew, and says where it is.

    Args:
        out: folder of the search.
        baseline: that of another search to compare with, such as random search.

    Raises:
        InputError: as of `load_run`.
    """
    search, state = load_run(Path(out))
    other = None if baseline is None else load_run(Path(baseline))[1]
    return write_report(SearchFolder(Path(out)), search, search.space(), state, other)


def worker_of(search: Search) -> Callable[[int], Worker]:
    """What makes the worker of a place.

    Raises:
        InputError: Ray is asked for and not installed.
    """
    if search.runner == "local":
        return lambda place: LocalWorker(place, search.workers)
    from perpixel.search.ray_workers import RayWorker

    return lambda place: RayWorker(search.cpus, search.gpus)


def propose(search: Search, state: SearchState) -> None:
    """Proposes what may be known now: up to `ahead` trials beyond those learned from."""
    while len(state.trials) < state.learned + search.ahead:
        hope = None if search.early_stop is None else search.early_stop.hope(state.running, state.learned)
        state.trials.append(Trial(state.policy.propose(), hope))


def learn(search: Search, state: SearchState) -> None:
    """Learns from ended trials in their order, proposing one after each, as if they had ended in that order."""
    while state.learned < min(search.trials, len(state.trials)):
        trial = state.trials[state.learned]
        if trial.outcome is None:
            return
        state.policy.learn(trial.proposal, trial.outcome.reward)
        if search.early_stop is not None:
            state.running = search.early_stop.update(state.running, trial.outcome)
        state.learned += 1
        propose(search, state)


def to_try(search: Search, state: SearchState, running: set[int]) -> list[int]:
    """Numbers of the proposed trials that wait for a worker."""
    proposed = range(state.learned, min(search.trials, len(state.trials)))
    return [number for number in proposed if number not in running and state.trials[number].outcome is None]


def task_of(search: Search, space: Space[Any], state: SearchState, number: int) -> Task:
    """What a worker is given for a trial."""
    trial = state.trials[number]
    return Task(number, space.build(trial.proposal.tokens), step_seed(search.seed, number, 0), trial.hope)


def _check(state: SearchState, out: Path) -> None:
    outcomes = [outcome for _, _, outcome in state.finished]
    if any(outcome.error is None for outcome in outcomes):
        return
    last = (outcomes[-1].error or "").partition("\n")[0]
    wrong = f"{InputError.__name__}: "  # the user's data or settings: no other trial will do better
    if last.startswith(wrong):
        raise InputError(
            f"{last.removeprefix(wrong)} (so said trial {len(outcomes)}; mend it, delete {out} and start anew)"
        )
    if len(outcomes) >= HOPELESS:
        raise InputError(
            f"all of the first {len(outcomes)} trials failed, the last with {last}; mend it, delete {out} and start anew"
        )
