"""Boxes: overlaps, and the two encodings that detectors regress."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# RetinaNet's exp(dw) is capped so that one wild location cannot overflow: 1000 px from a 16 px anchor.
LARGEST_LOG_SCALE = math.log(1000.0 / 16)


def box_area(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Area in square pixels; negative extents count as negative, so malformed boxes show."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every box of `a` with every box of `b`; 0 where both are empty."""
    intersection = pairwise_intersection(a, b)
    union = box_area(a)[:, None] + box_area(b)[None] - intersection
    return torch.where(intersection > 0, intersection / union.clamp(min=1e-12), 0.0)


def pairwise_intersection(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Area shared by every box of `a` with every box of `b`."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.T[:, :, None], b.T[:, None]
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    return width * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)


def overlap(
    a: Float[Tensor, "n 4"], b: Float[Tensor, "n 4"], smoothing: float = 0.0
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """IoU and generalised IoU of boxes row by row.

    Args:
        a, b: boxes in the same unit.
        smoothing: added to intersection and union of the IoU. AdelaiDet uses 1 with boxes in stride units, others 0; the
            enclosing term of GIoU (Rezatofighi et al. 2019) is never smoothed.
    """
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    union = box_area(a) + box_area(b) - intersection
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(dim=-1)
    tiny = torch.finfo(a.dtype).eps
    iou = (intersection + smoothing) / (union + smoothing).clamp(min=tiny)
    return iou, iou - (hull - union) / hull.clamp(min=tiny)


def clip_boxes(boxes: Float[Tensor, "*n 4"], size: tuple[int, int]) -> Float[Tensor, "*n 4"]:
    """Boxes cut at the borders of an image of `size` (height, width)."""
    height, width = size
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)
    return torch.minimum(boxes.clamp(min=0), limit)


def boxes_from_distances(points: Float[Tensor, "#*n 2"], distances: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Boxes whose sides lie (left, top, right, bottom) pixels from the points: thesis 002, eq. 3.1 inverted."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def distances_to_sides(points: Float[Tensor, "#*n 2"], boxes: Float[Tensor, "#*n 4"]) -> Float[Tensor, "*n 4"]:
    """(left, top, right, bottom) pixels from points to box sides, negative outside: thesis 002, eq. 3.1 before / s."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def nearest_side(points: Float[Tensor, "l 2"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "l n"]:
    """Distance in pixels from each point to the nearest side of each box, negative outside it.

    The least of `distances_to_sides` without the (l, n, 4) table, which a crowded picture would make hundreds of megabytes.
    """
    (x, y), (x1, y1, x2, y2) = points.T[:, :, None], boxes.T[:, None]
    return torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y))


def farthest_side(points: Float[Tensor, "l 2"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "l n"]:
    """Distance in pixels from each point to the farthest side of each box: max(l, t, r, b)."""
    (x, y), (x1, y1, x2, y2) = points.T[:, :, None], boxes.T[:, None]
    return torch.maximum(torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y))


def encode_deltas(anchors: Float[Tensor, "n 4"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Boxes as RetinaNet regresses them: centre shift over anchor size, log of the size ratio."""
    size = anchors[:, 2:] - anchors[:, :2]
    center = anchors[:, :2] + 0.5 * size
    box_size = boxes[:, 2:] - boxes[:, :2]
    box_center = boxes[:, :2] + 0.5 * box_size
    return torch.cat([(box_center - center) / size, torch.log(box_size / size)], dim=1)


def decode_deltas(anchors: Float[Tensor, "l 4"], deltas: Float[Tensor, "b l 4"]) -> Float[Tensor, "b l 4"]:
    """The inverse of `encode_deltas`, with the size ratio capped at 1000 / 16."""
    size = anchors[:, 2:] - anchors[:, :2]
    center = anchors[:, :2] + 0.5 * size + deltas[..., :2] * size
    half = 0.5 * size * deltas[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp()
    return torch.cat([center - half, center + half], dim=-1)


def filled_boxes(boxes: Float[Tensor, "n 4"], stride: int, height: int, width: int) -> Bool[Tensor, "n h w"]:
    """Whether the middle pixel of each cell belongs to each box, which covers the pixels int(x1) to int(x2)."""
    low, high = boxes[:, :2].floor(), (boxes[:, 2:] + 1).floor()
    down = torch.arange(height, device=boxes.device) * stride + stride // 2
    across = torch.arange(width, device=boxes.device) * stride + stride // 2
    rows = (down >= low[:, 1:]) & (down < high[:, 1:])
    columns = (across >= low[:, :1]) & (across < high[:, :1])
    return rows[:, :, None] & columns[:, None, :]
