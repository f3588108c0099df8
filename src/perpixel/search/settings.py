"""What is searched and how: the settings that all searches share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

from perpixel.search.early_stop import EarlyStop
from perpixel.search.policy import PolicyConfig
from perpixel.search.ppo import PPO
from perpixel.search.space import Space
from perpixel.search.trial import Reward


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """A space, a reward and how genotypes are chosen and tried; each named search is a subclass with settings of its own.

    Attributes:
        trials: genotypes to try.
        ahead: a genotype is proposed when the rewards of all but the `ahead` newest before it have been learned. So what is
            proposed depends neither on the number of workers nor on which trial ends first.
        seed: of the controller, of every trial.
        policy: the controller, or random search.
        early_stop: when a trial is given up; null tries each to the end.
        time_limit: seconds a trial may take, the first of a worker with loading what the reward needs; null waits.
        runner: workers are processes of this machine, or actors on a Ray cluster.
        workers: trials at a time.
        cpus: cores that Ray reserves for a worker.
        gpus: GPUs, or the share of one, that Ray reserves for a worker.
    """

    trials: int = 1000
    ahead: int = 4
    seed: int = 0
    policy: PolicyConfig = field(default_factory=PPO)
    early_stop: EarlyStop | None = field(default_factory=EarlyStop)
    time_limit: float | None = None
    runner: Literal["local", "ray"] = "local"
    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.trials < 1 or self.ahead < 1 or self.workers < 1:
            raise ValueError(f"trials={self.trials}, ahead={self.ahead} and workers={self.workers} must be at least 1")
        if self.workers > self.ahead:
            raise ValueError(f"workers={self.workers} are never all busy with ahead={self.ahead}: raise ahead")

    @abstractmethod
    def space(self) -> Space[Any]:
        """What may be proposed."""

    @abstractmethod
    def reward(self) -> Reward:
        """What a genotype is worth: a function, or a frozen dataclass with ``__call__``, that a worker can import."""
