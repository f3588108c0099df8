"""How well the people of a crowd are found, by CrowdHuman's rules: AP, MR^-2 and JI.

A detection explains the one object, not yet explained by a better one, that it overlaps most, if by more than half (the rule of
Caltech's pedestrians, Dollar et al. 2011). One that explains none and lies by more than half on a region that nobody judges
counts neither way. Boxes are cut at the image's border, truth and detections alike.

* AP is the area under precision over recall as they are, trapezoid by trapezoid, from recall 0 at the first precision on.
* MR^-2, where less is better, is the geometric mean of the miss rates at nine numbers of false positives an image, 0.01 to 1.
* JI, the Jaccard index, asks of one image how many objects k can be matched to detections, each to its own: k / (m + n - k) of m
  detections and n objects, averaged over the images that have any (Chu et al. 2020). It depends on the least score of a
  detection; reported is the best of the scores 0, 0.1 ... 0.9.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import networkx
import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy import ndarray

from perpixel.data.crowdhuman import PERSON, CrowdHumanDataset
from perpixel.data.crowds import CrowdsDataset
from perpixel.data.dataset import Dataset
from perpixel.ops.boxes import box_area, clip_boxes, pairwise_intersection, pairwise_iou

OVERLAP = 0.5
FALSE_POSITIVES = (0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0)
"""An image: where the miss rate is read."""
SCORES = tuple(k / 10 for k in range(10))
"""Least scores of which the best JI is taken."""

Boxes = Float64[ndarray, "_ 4"]


@dataclass(frozen=True)
class CrowdImage:
    """The objects of one image and what was found; boxes are xyxy.

    Attributes:
        truth: objects to be found.
        ignored: regions that nobody judges.
        found: detections.
        scores: of the detections.
    """

    truth: Boxes
    ignored: Boxes
    found: Boxes
    scores: Float64[ndarray, " _"]

    def above(self, score: float) -> "CrowdImage":
        """With the detections of at least this score alone."""
        kept = self.scores >= score
        return CrowdImage(self.truth, self.ignored, self.found[kept], self.scores[kept])


@dataclass(frozen=True)
class CrowdMetrics:
    """In fractions; -1 where the truth has no such object.

    Attributes:
        ap, miss_rate: AP and MR^-2.
        jaccard: JI at each of `SCORES`.
        score: the one of the best JI.
        recall: share of objects that are matched at one false positive an image, or at all detections where they bring fewer.
        crowded: objects that another overlaps by more than half: NMS at that overlap leaves one of them, if both are found well.
        crowded_recall: share of these that are matched there.
    """

    ap: float
    miss_rate: float
    jaccard: dict[float, float]
    score: float
    recall: float
    crowded: int
    crowded_recall: float

    @property
    def summary(self) -> dict[str, float]:
        """The three numbers that papers give, and the recalls."""
        ji = self.jaccard[self.score]
        return {
            "AP": self.ap,
            "MR-2": self.miss_rate,
            "JI": ji,
            "recall": self.recall,
            "crowded recall": self.crowded_recall,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"summary": self.summary}


def is_crowd(dataset: Dataset) -> bool:
    """Whether a data set is judged by these rules: CrowdHuman and synthetic crowds."""
    return isinstance(dataset, CrowdHumanDataset | CrowdsDataset)


def crowd_metrics(truth: dict[str, Any], results: Iterable[dict[str, Any]], name: str = PERSON) -> CrowdMetrics:
    """Scores the results of one class.

    Args:
        truth: in COCO's form; what is iscrowd is not judged.
        results: COCO results with boxes.
        name: the class.
    """
    return metrics_of(crowd_images(truth, results, name))


def crowd_images(truth: dict[str, Any], results: Iterable[dict[str, Any]], name: str) -> list[CrowdImage]:
    """The class's boxes of each image of the truth, cut at its border."""
    number = next(category["id"] for category in truth["categories"] if category["name"] == name)
    boxes: dict[tuple[Any, str], list[list[float]]] = defaultdict(list)
    scores: dict[Any, list[float]] = defaultdict(list)
    for annotation in truth["annotations"]:
        if annotation["category_id"] == number:
            kind = "ignored" if annotation.get("iscrowd") else "truth"
            boxes[annotation["image_id"], kind].append(annotation["bbox"])
    for result in results:
        if result["category_id"] == number:
            boxes[result["image_id"], "found"].append(result["bbox"])
            scores[result["image_id"]].append(result["score"])

    def cut(image: dict[str, Any], kind: str) -> Boxes:
        corners = torch.tensor(boxes[image["id"], kind], dtype=torch.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        return clip_boxes(corners, (image["height"], image["width"])).numpy()

    return [
        CrowdImage(
            cut(image, "truth"), cut(image, "ignored"), cut(image, "found"), np.array(scores[image["id"]], dtype=float)
        )
        for image in truth["images"]
    ]


def metrics_of(images: Sequence[CrowdImage]) -> CrowdMetrics:
    """All three figures and the recalls."""
    objects = sum(len(image.truth) for image in images)
    scores, right = (np.concatenate(column) for column in zip(*map(explained, images), strict=True))
    best_first = np.argsort(-scores, kind="stable")
    scores, right = scores[best_first], right[best_first]
    few = np.searchsorted(np.cumsum(~right) / len(images), FALSE_POSITIVES[-1], side="right")
    least = scores[few - 1] if few else np.inf
    matched = np.concatenate([matching(image.above(least))[0] for image in images])
    crowded = np.concatenate([np.zeros(0, bool), *(_overlapped(image.truth) for image in images)])
    jaccard = {}
    for score in SCORES:
        indices = [jaccard_index(image.above(score)) for image in images]
        counted = [index for index in indices if index is not None]
        jaccard[score] = float(np.mean(counted)) if counted else -1.0
    return CrowdMetrics(
        ap=average_precision(right, objects),
        miss_rate=log_average_miss_rate(right, objects, len(images)),
        jaccard=jaccard,
        score=max(SCORES, key=lambda score: jaccard[score]),
        recall=_share(matched),
        crowded=int(crowded.sum()),
        crowded_recall=_share(matched[crowded]),
    )


def explained(image: CrowdImage) -> tuple[Float64[ndarray, " n"], Bool[ndarray, " n"]]:
    """Scores of the detections that count, best first, and which of them explain an object."""
    iou, silent = _ious(image.truth, image.found), _silent(image)
    free = np.ones(len(image.truth), dtype=bool)
    scores, right = [], []
    for row in np.argsort(-image.scores, kind="stable"):
        overlaps = np.where(free, iou[:, row], 0.0)
        hit = overlaps.size > 0 and overlaps.max() > OVERLAP
        if hit:
            free[overlaps.argmax()] = False
        if hit or not silent[row]:
            scores.append(image.scores[row])
            right.append(hit)
    return np.array(scores, dtype=float), np.array(right, dtype=bool)


def average_precision(right: Bool[ndarray, " n"], objects: int) -> float:
    """Area under precision over recall of detections sorted by score; -1 without objects.

    From recall 0 to the first detection's the curve stays at its precision. CrowdHuman's own sum begins at the first detection
    and is less by one part in as many as there are objects.
    """
    if not objects:
        return -1.0
    if not len(right):
        return 0.0
    hits = np.cumsum(right)
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / objects
    return float(np.trapezoid(np.append(precision[:1], precision), np.append(0.0, recall)))


def log_average_miss_rate(right: Bool[ndarray, " n"], objects: int, images: int) -> float:
    """MR^-2 of detections sorted by score; -1 without objects.

    Each miss rate is that of the first detection that brings the false positives to the wanted number, or of the last detection.
    """
    if not objects:
        return -1.0
    if not len(right):
        return 1.0
    wrong, missed = np.cumsum(~right) / images, 1 - np.cumsum(right) / objects
    first = np.searchsorted(wrong, FALSE_POSITIVES)
    rates = missed[first.clip(max=len(right) - 1)]
    return float(np.exp(np.mean(np.log(np.maximum(rates, 1e-10)))))


def jaccard_index(image: CrowdImage) -> float | None:
    """k / (m + n - k); None in an image without an object and a detection that counts.

    An unmatched detection on a region that nobody judges is not one of m.
    """
    matched, used = matching(image)
    pairs, found = int(used.sum()), int((used | ~_silent(image)).sum())
    together = found + len(matched) - pairs
    return pairs / together if together else None


def matching(image: CrowdImage) -> tuple[Bool[ndarray, " n"], Bool[ndarray, " m"]]:
    """Which objects and detections belong together: the pairs, overlapping by more than half, of the largest sum of IoUs."""
    iou = _ious(image.truth, image.found)
    graph = networkx.Graph()
    for row, column in np.argwhere(iou > OVERLAP).tolist():
        graph.add_edge(row, len(iou) + column, weight=float(iou[row, column]))
    matched, used = np.zeros(len(image.truth), dtype=bool), np.zeros(len(image.found), dtype=bool)
    for pair in networkx.max_weight_matching(graph):
        row, column = sorted(pair)
        matched[row] = used[column - len(iou)] = True
    return matched, used


def _overlapped(truth: Boxes) -> Bool[ndarray, " n"]:
    """Whether another object overlaps each by more than half."""
    boxes = torch.from_numpy(truth)
    return (pairwise_iou(boxes, boxes).fill_diagonal_(0.0) > OVERLAP).any(dim=1).numpy()


def _silent(image: CrowdImage) -> Bool[ndarray, " n"]:
    """Detections that lie by more than half on one region that nobody judges."""
    found, ignored = torch.from_numpy(image.found), torch.from_numpy(image.ignored)
    share = pairwise_intersection(found, ignored) / box_area(found).clamp(min=1e-12)[:, None]
    return (share > OVERLAP).any(dim=1).numpy()


def _ious(first: Boxes, second: Boxes) -> Float64[ndarray, "n m"]:
    return pairwise_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()


def _share(found: Bool[ndarray, " n"]) -> float:
    return float(found.mean()) if len(found) else -1.0
