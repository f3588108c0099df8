"""The images of an evaluation that are worth a look: the worst, the best, and some evenly spread over the set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from perpixel.data.dataset import Dataset
from perpixel.engine.instances import Instances

Group = Literal["all", "worst", "best", "spread"]
Rank = tuple[float, float]
"""Of an image: its quality, and what tells ties apart; what is smaller is worse."""


@dataclass(frozen=True)
class Example:
    """One image that is kept to be looked at.

    Attributes:
        index: in the data set.
        found: what the model found in it.
        group: why it is kept; "all" where every image of the set is.
        note: its quality in words, such as ``F1 0.43``: what images are ranked by.
    """

    index: int
    found: Instances
    group: Group
    note: str


def choose(ranks: Mapping[int, Rank], wanted: int, total: int) -> dict[int, Group]:
    """At most `wanted` images in the order they are shown in: half the worst, a quarter the best, the rest evenly spread.

    Args:
        ranks: by index, of the images to choose from.
        wanted: images at most.
        total: images of the whole set, over which the last are spread.
    """
    order = sorted(ranks, key=lambda index: (ranks[index], index))
    groups: dict[int, Group]
    if total <= wanted:
        groups = dict.fromkeys(order, "all")
        return groups
    few, most, rest = _shares(wanted)
    groups = dict.fromkeys(order[:few], "worst")
    groups |= dict.fromkeys(order[few:][::-1][:most], "best")
    for index in evenly(total, rest):
        if index in ranks:
            groups.setdefault(index, "spread")
    return groups


def _shares(wanted: int) -> tuple[int, int, int]:
    """How many are the worst, the best, and evenly spread."""
    few, most = wanted - wanted // 2, wanted // 4
    return few, most, wanted - few - most


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` numbers below `count`, evenly spread."""
    wanted = min(wanted, count)
    return [i * count // wanted for i in range(wanted)]


class Kept:
    """What was found in the images that may still be chosen; one that better and worse ones push out is forgotten.

    Args:
        wanted, total: as of `choose`.

    Attributes:
        rows: by index: rank, its words, what was found.
    """

    def __init__(self, wanted: int, total: int) -> None:
        self.rows: dict[int, tuple[Rank, str, Instances]] = {}
        self._wanted, self._total = wanted, total
        self._few, self._most, rest = _shares(wanted)
        self._always = set(evenly(total, total if total <= wanted else rest))

    def offer(self, index: int, rank: Rank, note: str, found: Instances) -> None:
        """Keeps an image, and forgets one that can no longer be chosen."""
        self.rows[index] = rank, note, found
        others = sorted(self.rows.keys() - self._always, key=lambda index: (self.rows[index][0], index))
        if len(others) > self._few + self._most:
            del self.rows[others[self._few]]

    def chosen(self) -> tuple[Example, ...]:
        """The images to show, in their order."""
        groups = choose({index: row[0] for index, row in self.rows.items()}, self._wanted, self._total)
        return tuple(Example(index, self.rows[index][2], group, self.rows[index][1]) for index, group in groups.items())


def instances_of(results: list[dict[str, Any]], dataset: Dataset, index: int) -> Instances:
    """What COCO results of one image say was found in it: the inverse of `Instances.to_coco`."""
    label_of = {identity: label for label, identity in enumerate(dataset.category_ids)}
    boxes = np.array([result["bbox"] for result in results], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    keypoints = None
    if any("keypoints" in result for result in results):
        # COCO counts keypoints by pixel index; here a pixel's centre lies half a pixel further.
        joints = np.array([result["keypoints"] for result in results], dtype=np.float32)
        keypoints = joints.reshape(len(results), -1, 3) + np.array((0.5, 0.5, 0), dtype=np.float32)
    return Instances(
        boxes=boxes,
        scores=np.array([result["score"] for result in results], dtype=np.float32),
        labels=np.array([label_of[result["category_id"]] for result in results], dtype=np.int64),
        class_names=dataset.classes,
        size=dataset.record(index).size,
        runs=tuple(r["segmentation"] for r in results) if any("segmentation" in r for r in results) else None,
        keypoints=keypoints,
        skeleton=dataset.skeleton,
    )
