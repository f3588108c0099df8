"""How well a model tells the class of every pixel: IoU and accuracy over a whole set, near boundaries too."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, Int64
from numpy import ndarray
from torch import Tensor

from perpixel.structures import VOID

TRIMAP_WIDTH = 3
"""Pixels around the boundaries between classes that tIoU looks at (thesis 004, table 6.4)."""


@dataclass(frozen=True)
class PixelCounts:
    """What one image adds.

    Attributes:
        all: (k, k + 1) pixels of true class (row) by predicted class (column); the last column: told no class.
        trimap: the same near boundaries.
    """

    all: Int64[ndarray, "k more"]
    trimap: Int64[ndarray, "k more"]


@dataclass(frozen=True)
class ClassAccuracy:
    """One class: how many pixels it truly has, and how well they were told; -1 where it does not occur."""

    name: str
    pixels: int
    iou: float
    accuracy: float
    trimap_iou: float


@dataclass(frozen=True)
class SemanticMetrics:
    """Semantic segmentation measured; all values 0..1.

    Attributes:
        mean_iou: mean over classes of true positives / (true positives + false positives + false negatives).
        mean_accuracy: mean over classes of the share of their true pixels that was told.
        accuracy: share of all pixels that was told.
        weighted_iou: IoU of the classes weighted by their true pixels.
        trimap_iou: mean IoU over the pixels near boundaries.
        per_class: a row a class.
    """

    mean_iou: float
    mean_accuracy: float
    accuracy: float
    weighted_iou: float
    trimap_iou: float
    per_class: list[ClassAccuracy]

    @property
    def summary(self) -> dict[str, float]:
        """The numbers by the names of the thesis's tables."""
        return {
            "mIoU": self.mean_iou,
            "mAcc": self.mean_accuracy,
            "gAcc": self.accuracy,
            "fwIoU": self.weighted_iou,
            "tIoU": self.trimap_iou,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"summary": self.summary, "per_class": [asdict(row) for row in self.per_class]}


def count_pixels(truth: Int[Tensor, "h w"], predicted: Int[Tensor, "h w"], classes: int) -> PixelCounts:
    """What an image adds.

    Args:
        truth: class of each pixel, or `VOID`: such a pixel does not count.
        predicted: class of each pixel; -1 where none was told, which is wrong for every class.
        classes: how many there are.
    """
    return PixelCounts(
        _confusion(truth, predicted, truth != VOID, classes), _confusion(truth, predicted, trimap(truth), classes)
    )


def _confusion(truth: Tensor, predicted: Tensor, counted: Tensor, classes: int) -> Int64[ndarray, "k more"]:
    wide = classes + 1
    # -1 modulo k + 1 is the last column.
    pairs = truth[counted].long() * wide + predicted[counted].long() % wide
    return torch.bincount(pairs, minlength=classes * wide).reshape(classes, wide).cpu().numpy()


def trimap(truth: Int[Tensor, "h w"], width: int = TRIMAP_WIDTH) -> Bool[Tensor, "h w"]:
    """Known pixels at most `width` rows and columns away from a known pixel of another class."""
    known = truth != VOID
    values = truth.float()[None, None]
    side = 2 * width + 1
    low, high = values.masked_fill(~known, torch.inf), values.masked_fill(~known, -torch.inf)
    most = F.max_pool2d(high, side, stride=1, padding=width)
    least = -F.max_pool2d(-low, side, stride=1, padding=width)
    return known & (most > least)[0, 0]


def semantic_metrics(counts: Sequence[PixelCounts], names: Sequence[str]) -> SemanticMetrics:
    """The metrics of all images together. Means are over the classes that occur in truth or prediction (IoU) or truth (accuracy).

    Args:
        counts: of each image.
        names: of the classes.
    """
    everywhere, near = sum(one.all for one in counts), sum(one.trimap for one in counts)
    iou, accuracy, true = _rates(np.asarray(everywhere), len(names))
    near_iou, _, _ = _rates(np.asarray(near), len(names))
    hits = float(np.trace(np.asarray(everywhere)))
    share = true / max(true.sum(), 1)
    rows = [
        ClassAccuracy(name, int(true[k]), float(iou[k]), float(accuracy[k]), float(near_iou[k]))
        for k, name in enumerate(names)
    ]
    return SemanticMetrics(
        mean_iou=_mean(iou),
        mean_accuracy=_mean(accuracy),
        accuracy=hits / max(float(true.sum()), 1.0),
        weighted_iou=float((share * np.maximum(iou, 0)).sum()),
        trimap_iou=_mean(near_iou),
        per_class=rows,
    )


def _rates(table: ndarray, classes: int) -> tuple[ndarray, ndarray, ndarray]:
    """IoU, accuracy (-1 where a class does not occur) and true pixels of each class."""
    hit, true = np.diagonal(table)[:classes].astype(np.float64), table.sum(1).astype(np.float64)
    union = true + table[:, :classes].sum(0) - hit
    iou = np.where(union > 0, hit / np.maximum(union, 1), -1.0)
    return iou, np.where(true > 0, hit / np.maximum(true, 1), -1.0), true


def _mean(values: ndarray) -> float:
    """Over what occurs; -1 where nothing does."""
    return float(values[values >= 0].mean()) if (values >= 0).any() else -1.0
