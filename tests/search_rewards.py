"""Rewards that worker processes of the tests import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from perpixel.search.spaces.toy import ToyGenotype, ToyReward, ToySearch


def by_first_operation(genotype: ToyGenotype) -> float:
    """Fares well, raises, gets killed or hangs, as the first operation says."""
    fate = genotype.steps[0].operation
    if fate == "double":
        raise RuntimeError("no <b>memory</b>")
    if fate == "square":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "nothing":
        time.sleep(600)
    return ToyReward()(genotype)


@dataclass(frozen=True)
class CountedReward:
    """As `ToyReward`; each try leaves a letter in a file.

    Attributes:
        tries: the file.
        seconds: that a trial waits.
    """

    tries: str
    seconds: float

    def __call__(self, genotype: ToyGenotype) -> float:
        """The reward."""
        with Path(self.tries).open("a") as file:
            file.write("x")
        return ToyReward(self.seconds)(genotype)


@dataclass(frozen=True, kw_only=True)
class CountedSearch(ToySearch):
    """A search whose tries are counted in the file `tries`."""

    tries: str

    def reward(self) -> CountedReward:
        """As of `ToySearch`."""
        return CountedReward(self.tries, self.seconds)
