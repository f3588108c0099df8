"""Which images make up which step: a pure function of the seed, so training can resume anywhere and split over processes."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int64
from numpy import ndarray


class StepOrder:
    """An endless series of batches in which every image comes once an epoch.

    Images of one group (landscape or portrait) share batches. Each group is an endless stream, one fresh permutation an
    epoch, cut into batches across epochs: nothing is dropped and nothing comes twice in an epoch. An epoch's batches are
    those completed in it, in random order. All of it is arithmetic on the step's number.

    Args:
        groups: images of each group, as numbers of the data set; empty groups are ignored.
        batch_size: images of one step, all processes together.
        seed: chooses the permutations.
    """

    def __init__(self, groups: Sequence[Int64[ndarray, " _"]], batch_size: int, seed: int) -> None:
        self.groups = [group for group in groups if len(group)]
        self.batch_size, self.seed = batch_size, seed

    def indices(self, step: int) -> Int64[ndarray, " b"]:
        """Images of `step`, counted from 0."""
        epoch = self._epoch(step)
        group, batch = _schedule(self._counts(), self.batch_size, self.seed, epoch)[step - self._first_step(epoch)]
        members = self.groups[group]
        places = np.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
        turns, within = np.divmod(places, len(members))
        out = np.empty(self.batch_size, dtype=np.int64)
        for turn in np.unique(turns):
            chosen = turns == turn
            out[chosen] = members[_permutation(len(members), self.seed, int(turn), group)[within[chosen]]]
        return out

    def any_index(self, random: np.random.Generator) -> int:
        """Some image, to stand in for one that cannot be read."""
        members = np.concatenate(self.groups)
        return int(members[random.integers(len(members))])

    def _counts(self) -> tuple[int, ...]:
        return tuple(len(group) for group in self.groups)

    def _first_step(self, epoch: int) -> int:
        return sum(epoch * count // self.batch_size for count in self._counts())

    def _epoch(self, step: int) -> int:
        """The epoch in which `step` is completed: the last one that begins at or before it."""
        low, high = 0, 1
        while self._first_step(high) <= step:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._first_step(middle) <= step else (low, middle)
        return low


@lru_cache(maxsize=8)
def _schedule(counts: tuple[int, ...], batch_size: int, seed: int, epoch: int) -> list[tuple[int, int]]:
    """(group, batch of the group) of each step of an epoch."""
    steps = [
        (group, batch)
        for group, count in enumerate(counts)
        for batch in range(epoch * count // batch_size, (epoch + 1) * count // batch_size)
    ]
    order = np.random.default_rng([seed, epoch, 1]).permutation(len(steps))
    return [steps[place] for place in order]


@lru_cache(maxsize=8)
def _permutation(count: int, seed: int, epoch: int, group: int) -> ndarray:
    return np.random.default_rng([seed, epoch, 2, group]).permutation(count)


def shape_groups(sizes: Int64[ndarray, "n 2"], members: Int64[ndarray, " m"]) -> list[Int64[ndarray, " _"]]:
    """`members` split into landscape (or square) and portrait images."""
    portrait = sizes[members, 0] > sizes[members, 1]
    return [members[~portrait], members[portrait]]
