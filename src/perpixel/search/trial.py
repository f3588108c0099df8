"""One genotype tried: what a worker is given, what comes back, and what a reward function may say while it runs.

A reward is an ordinary function, ``reward(genotype) -> float``. Called by hand, outside a search, `report` and
`worth_going_on` change nothing.
"""

import math
import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Reward = Callable[[Any], float]


@dataclass(frozen=True)
class Hope:
    """When a trial is worth going on with (nas-segm's rule, see `EarlyStop`).

    Attributes:
        running: averages of what earlier trials had reached where each asked its first, second ... question.
        start: the average before anybody asked.
        tolerance: how far below the average a trial may stay, as a fraction; how much of it, chance decides.
    """

    running: tuple[float, ...]
    start: float
    tolerance: float

    def limit(self, question: int, luck: float) -> float:
        """What must be exceeded; `luck` is from 0 to 1."""
        average = self.running[question] if question < len(self.running) else self.start
        return average * (1 - luck * self.tolerance)


@dataclass(frozen=True)
class Task:
    """What a worker is given.

    Attributes:
        number: of the trial, from 0.
        genotype: to be tried.
        seed: of its random numbers.
        hope: None tries every genotype to the end.
    """

    number: int
    genotype: Any
    seed: int
    hope: Hope | None = None


@dataclass(frozen=True)
class Outcome:
    """What came back.

    Attributes:
        reward: for the controller; 0 where the trial failed.
        values: what the reward function reported, by name.
        interim: what it had reached where it asked whether to go on.
        stopped: whether it was told not to.
        seconds: how long it took.
        error: why it failed; None where it did not.
    """

    reward: float
    values: dict[str, float] = field(default_factory=dict)
    interim: tuple[float, ...] = ()
    stopped: bool = False
    seconds: float = 0.0
    error: str | None = None


class _Progress:
    """What the trial that runs in this process has said so far."""

    def __init__(self, task: Task) -> None:
        self.values: dict[str, float] = {}
        self.interim: list[float] = []
        self.stopped = False
        self._hope, self._luck = task.hope, random.Random(task.seed)

    def worth_going_on(self, value: float) -> bool:
        self.interim.append(value)
        if self._hope is None:
            return True
        hopeful = value > self._hope.limit(len(self.interim) - 1, self._luck.random())
        self.stopped |= not hopeful
        return hopeful


_progress: ContextVar[_Progress | None] = ContextVar("trial in progress", default=None)


def report(**values: float) -> None:
    """Keeps figures of the running trial beside its reward, such as ``report(mean_iou=0.4)``; the last of a name stays."""
    progress = _progress.get()
    if progress is not None:
        progress.values |= {name: float(value) for name, value in values.items()}


def worth_going_on(value: float) -> bool:
    """Whether a trial that has reached this reward so far should go on.

    A reward function asks once or more on the way, and returns what it has where the answer is no.
    """
    progress = _progress.get()
    return True if progress is None else progress.worth_going_on(float(value))


def evaluate(reward: Reward, task: Task) -> Outcome:
    """Tries a genotype in this process, its random numbers seeded.

    Raises:
        ValueError: the reward is no finite number.
        Exception: whatever the reward function raises.
    """
    torch.manual_seed(task.seed)
    np.random.seed(task.seed % 2**32)
    random.seed(task.seed)
    progress, began = _Progress(task), time.monotonic()
    entered = _progress.set(progress)
    try:
        value = float(reward(task.genotype))
    finally:
        _progress.reset(entered)
    if not math.isfinite(value):
        raise ValueError(f"the reward is {value}, not a finite number")
    seconds = time.monotonic() - began
    return Outcome(value, progress.values, tuple(progress.interim), progress.stopped, seconds)
