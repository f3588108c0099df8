"""What keypoint methods train on: known keypoints, the rectangles around them, and cells of heat maps."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.ops.boxes import filled_boxes
from perpixel.ops.keypoints import enclosing_boxes, keypoint_cells
from perpixel.structures import Targets

LEAST_SIDE = 8.0
"""Pixels: a rectangle around one keypoint, or around several on a line, would hold no location; this is P3's stride."""


def keypoints_of(target: Targets, count: int) -> Float[Tensor, "n k 3"]:
    """x, y, visibility of an image's objects.

    Raises:
        InputError: the data have no keypoints, or another number of them.
    """
    found = target.keypoints
    if found is None:
        raise InputError(
            "this model learns from keypoints and the data have none: set data.train to data with keypoints"
        )
    if found.shape[1] != count:
        raise InputError(
            f"the data have {found.shape[1]} keypoints an object, not {count}: name theirs in model.instance.keypoints"
        )
    return found


def with_pseudo_boxes(targets: Sequence[Targets], count: int) -> tuple[Targets, ...]:
    """Targets whose boxes are the rectangles of their known keypoints (thesis 002, 4.2.1).

    An object without a known keypoint keeps its box: it trains the box head, of which only the classifier matters here.
    """
    changed = []
    for target in targets:
        keypoints = keypoints_of(target, count)
        known = keypoints[..., 2] > 0
        boxes = enclosing_boxes(keypoints[..., :2], known, LEAST_SIDE)
        changed.append(replace(target, boxes=torch.where(known.any(dim=1)[:, None], boxes, target.boxes)))
    return tuple(changed)


def heat_map_truth(
    target: Targets, count: int, stride: int, height: int, width: int
) -> tuple[Bool[Tensor, "h w k"], Bool[Tensor, "h w"]]:
    """Which cells hold which keypoints, and where that is not known: in crowds and objects without a known keypoint.

    A cell with keypoints of two kinds is positive for both: binary labels, as footnote 2 of 4.2.3 says.
    """
    keypoints = keypoints_of(target, count)
    known = keypoints[..., 2] > 0
    cells = keypoint_cells(keypoints[..., :2], known, stride, height, width)
    unlabelled = target.boxes[~known.any(dim=1)]
    if target.ignored is not None:
        unlabelled = torch.cat([unlabelled, target.ignored])
    unknown = filled_boxes(unlabelled, stride, height, width).any(dim=0)
    return cells, unknown & ~cells.any(dim=2)
