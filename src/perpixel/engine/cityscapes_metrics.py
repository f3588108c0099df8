"""Average precision of instances by Cityscapes' rules, which differ from COCO's.

Masks are compared at ten overlaps, .50 to .95. An object of fewer than `LEAST_PIXELS` pixels is none to be found. A prediction
that no object explains is not counted wrong where more of it than the overlap asked for lies on pixels that tell nothing: void,
groups of its class, objects too small. Precision is integrated over recall as it is, not at 101 recalls, and any number of
predictions counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32
from numpy import ndarray

from perpixel.data.cityscapes import STUFF, THINGS, CityscapesDataset
from perpixel.data.dataset import Rle
from perpixel.data.masks import draw_shape

OVERLAPS: tuple[float, ...] = tuple(k / 100 for k in range(50, 100, 5))
LEAST_PIXELS = 100


@dataclass(frozen=True)
class Prediction:
    """A predicted mask laid on the truth.

    Attributes:
        score: confidence.
        pixels: of the mask.
        shared: pixels it shares with each object or group of its class, by number.
        void: pixels it has on void.
    """

    score: float
    pixels: int
    shared: dict[int, int]
    void: int


@dataclass(frozen=True)
class ClassInImage:
    """All that one class has in one image.

    Attributes:
        areas: pixels of each object (number >= 1000) and of the group (number < 1000).
        predictions: of the class.
    """

    areas: dict[int, int]
    predictions: tuple[Prediction, ...]


def lay_out(
    ids: Int32[ndarray, "h w"], found: Sequence[tuple[str, float, Bool[ndarray, "h w"]]]
) -> dict[str, ClassInImage]:
    """Truth and predictions of an image by class.

    Args:
        ids: the picture of object numbers.
        found: class name, score and mask of each prediction; an empty mask is no prediction.
    """
    areas = {number: int(area) for number, area in enumerate(np.bincount(ids.ravel())) if area}
    counted = {*STUFF.values(), *THINGS.values()}
    by_class: dict[str, list[Prediction]] = defaultdict(list)
    for name, score, mask in found:
        if not mask.any():
            continue
        under = {number: int(count) for number, count in enumerate(np.bincount(ids[mask])) if count}
        shared = {number: count for number, count in under.items() if _class_of(number) == THINGS[name]}
        void = sum(count for number, count in under.items() if _class_of(number) not in counted)
        by_class[name].append(Prediction(score, int(mask.sum()), shared, void))
    return {
        name: ClassInImage({n: a for n, a in areas.items() if _class_of(n) == number}, tuple(by_class[name]))
        for name, number in THINGS.items()
    }


def _class_of(number: int) -> int:
    return number // 1000 if number >= 1000 else number


def judge(one: ClassInImage, overlap: float) -> tuple[list[tuple[float, bool]], int]:
    """(score, right or wrong) of the predictions that count at an overlap, and the number of objects to be found."""
    wanted = {number for number, area in one.areas.items() if number >= 1000 and area >= LEAST_PIXELS}
    claims: dict[int, list[float]] = defaultdict(list)
    judged: list[tuple[float, bool]] = []
    for prediction in one.predictions:
        # Objects share no pixel, so at most one is overlapped by more than half.
        partner = next(
            (n for n, both in prediction.shared.items() if both > overlap * (prediction.pixels + one.areas[n] - both)),
            None,
        )
        if partner in wanted:
            claims[partner].append(prediction.score)
        elif partner is None:
            silent = prediction.void + sum(both for n, both in prediction.shared.items() if n not in wanted)
            if silent <= overlap * prediction.pixels:
                judged.append((prediction.score, False))
    for scores in claims.values():
        best, *others = sorted(scores, reverse=True)
        judged += [(best, True), *((score, False) for score in others)]
    return judged, len(wanted)


def average_precision(judged: Sequence[tuple[float, bool]], objects: int) -> float:
    """Area under precision over recall, trapezoid by trapezoid, from precision 1 at recall 0; NaN without objects."""
    if not objects:
        return float("nan")
    if not judged:
        return 0.0
    scores = np.array([score for score, _ in judged])
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(np.array([hit for _, hit in judged])[order])
    # Predictions of one score enter together.
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision = np.concatenate([[1.0], right[last] / (last + 1)])
    recall = np.concatenate([[0.0], right[last] / objects])
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))


def class_precisions(images: Iterable[dict[str, ClassInImage]]) -> dict[str, dict[str, float]]:
    """AP and AP50 of each class; NaN where it has no object."""
    judged: dict[tuple[str, float], list[tuple[float, bool]]] = defaultdict(list)
    objects: dict[str, int] = defaultdict(int)
    for image in images:
        for name, one in image.items():
            for overlap in OVERLAPS:
                counted, wanted = judge(one, overlap)
                judged[name, overlap] += counted
            objects[name] += wanted
    table = {}
    for name in THINGS:
        values = [average_precision(judged[name, overlap], objects[name]) for overlap in OVERLAPS]
        table[name] = {"AP": float(np.mean(values)), "AP50": values[0]}
    return table


def cityscapes_metrics(
    dataset: CityscapesDataset, results: Iterable[dict[str, Any]], images: Iterable[int] | None = None
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Scores COCO results with masks by Cityscapes' rules.

    Args:
        dataset: the split.
        results: image_id, category_id, score and segmentation (run lengths).
        images: indices of the images that count; None means all.

    Returns:
        AP and AP50 averaged over the classes that have objects, and both a class.
    """
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        by_image[result["image_id"]].append(result)
    names = dict(zip(dataset.category_ids, dataset.classes, strict=True))

    def laid_out() -> Iterable[dict[str, ClassInImage]]:
        for index in range(len(dataset)) if images is None else images:
            ids = dataset.instance_ids(index)
            found = [
                (names[r["category_id"]], float(r["score"]), draw_shape(_code(r["segmentation"]), ids.shape))
                for r in by_image[dataset.record(index).id]
                if names[r["category_id"]] in THINGS
            ]
            yield lay_out(ids, found)

    table = class_precisions(laid_out())
    summary = {}
    for column in ("AP", "AP50"):
        values = np.array([row[column] for row in table.values()])
        summary[column] = float(np.nanmean(values)) if np.isfinite(values).any() else -1.0
    return summary, table


def _code(segmentation: dict[str, Any]) -> Rle:
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    return Rle((height, width), counts.encode() if isinstance(counts, str) else counts)
