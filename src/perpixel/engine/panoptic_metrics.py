"""Panoptic quality as panopticapi defines it (Kirillov et al., "Panoptic Segmentation", 2019).

A predicted segment finds a true one of its class if they overlap by more than half, void pixels not counted; so at most one finds
any. PQ = SQ * RQ: the mean overlap of the found, times found / (found + wrong / 2 + missed / 2), a class at a time. A true group
(crowd) is neither missed nor found; a prediction that lies to more than half on void and on groups of its class is not wrong.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray

from perpixel.structures import Segments


@dataclass(frozen=True)
class Counts:
    """What the segments of an image, or of many, add to each class.

    Attributes:
        found, wrong, missed: (k,) segments.
        overlap: (k,) sum of the overlaps (IoU) of those found.
    """

    found: Int64[ndarray, " k"]
    wrong: Int64[ndarray, " k"]
    missed: Int64[ndarray, " k"]
    overlap: Float64[ndarray, " k"]


@dataclass(frozen=True)
class ClassQuality:
    """One row of the table of classes; -1 where neither truth nor prediction has a segment of the class.

    Attributes:
        name: of the class.
        thing: whether it has objects.
        truth, predicted: segments counted, those that are neither right nor wrong left out.
        pq, sq, rq: panoptic, segmentation and recognition quality.
    """

    name: str
    thing: bool
    truth: int
    predicted: int
    pq: float
    sq: float
    rq: float


@dataclass(frozen=True)
class PanopticMetrics:
    """Panoptic quality in fractions; -1 where there is nothing to average.

    Attributes:
        summary: PQ, SQ, RQ over all classes that occur, then with ``_things`` and ``_stuff`` over each kind.
        per_class: a row a class, things first.
    """

    summary: dict[str, float]
    per_class: list[ClassQuality]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def count_segments(truth: Segments, predicted: Segments, classes: int) -> Counts:
    """What an image adds: from one table of how many pixels each pair of true and predicted segment shares.

    Args:
        truth, predicted: of one photo; labels below `classes`. Groups are told by `truth.crowd`.
        classes: of objects and stuff together.
    """
    rows, columns = len(truth) + 1, len(predicted) + 1
    # (row + 1) * columns + column + 1: row and column 0 are void.
    pairs = (truth.map * columns).add_(predicted.map).add_(columns + 1)
    shared = torch.bincount(pairs.flatten(), minlength=rows * columns).reshape(rows, columns).cpu().numpy()
    true_labels, labels = truth.labels.cpu().numpy(), predicted.labels.cpu().numpy()
    crowd = truth.crowd.cpu().numpy()
    areas, true_areas, void = shared.sum(0)[1:], shared.sum(1)[1:], shared[0, 1:]
    both = shared[1:, 1:]
    same = true_labels[:, None] == labels
    union = true_areas[:, None] + areas - both - void
    matched = same & ~crowd[:, None] & (2 * both > union)
    true_found, found = matched.any(1), matched.any(0)
    silent = void + (both * (same & crowd[:, None])).sum(0)
    wrong = (areas > 0) & ~found & (2 * silent <= areas)
    missed = (true_areas > 0) & ~true_found & ~crowd
    at = np.nonzero(matched)
    return Counts(
        found=np.bincount(labels[found], minlength=classes),
        wrong=np.bincount(labels[wrong], minlength=classes),
        missed=np.bincount(true_labels[missed], minlength=classes),
        overlap=np.bincount(labels[at[1]], weights=both[at] / union[at], minlength=classes).astype(np.float64),
    )


def panoptic_metrics(counts: Iterable[Counts], things: Sequence[str], stuff: Sequence[str]) -> PanopticMetrics:
    """Panoptic quality of all images together.

    Args:
        counts: of each image.
        things, stuff: names of the classes; labels of stuff follow those of things.
    """
    total = len(things) + len(stuff)
    found, wrong, missed = (np.zeros(total, dtype=np.int64) for _ in range(3))
    overlap = np.zeros(total)
    for one in counts:
        found, wrong, missed = found + one.found, wrong + one.wrong, missed + one.missed
        overlap = overlap + one.overlap
    occurs = found + wrong + missed > 0
    rq = np.where(occurs, found / np.maximum(found + wrong / 2 + missed / 2, 0.5), -1.0)
    sq = np.where(occurs, overlap / np.maximum(found, 1), -1.0)
    pq = np.where(occurs, rq * sq, -1.0)
    is_thing = np.arange(total) < len(things)
    summary = {}
    for ending, of_kind in (("", is_thing | ~is_thing), ("_things", is_thing), ("_stuff", ~is_thing)):
        chosen = occurs & of_kind
        for name, values in (("PQ", pq), ("SQ", sq), ("RQ", rq)):
            summary[f"{name}{ending}"] = float(values[chosen].mean()) if chosen.any() else -1.0
    per_class = [
        ClassQuality(
            name=name,
            thing=bool(is_thing[k]),
            truth=int(found[k] + missed[k]),
            predicted=int(found[k] + wrong[k]),
            pq=float(pq[k]),
            sq=float(sq[k]),
            rq=float(rq[k]),
        )
        for k, name in enumerate((*things, *stuff))
    ]
    return PanopticMetrics(summary, per_class)
