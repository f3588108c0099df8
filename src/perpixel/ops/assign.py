"""Which location is trained on which object: FCOS's geometry and RetinaNet's overlaps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perpixel.ops.boxes import box_area, farthest_side, nearest_side, pairwise_iou

BACKGROUND, IGNORED = -1, -2
LevelRule = Literal["distance", "fpn", "area", "side"]
Preference = Literal["smallest", "nearest"]


def inside_sampling_region(
    points: Float[Tensor, "l 2"],
    strides: Float[Tensor, " l"],
    boxes: Float[Tensor, "n 4"],
    centers: Float[Tensor, "n 2"],
    radius: float | None,
) -> Bool[Tensor, "l n"]:
    """Whether each point lies strictly inside each box and within `radius` strides of its centre: thesis 002, 3.2.1.

    Args:
        points, strides: the locations.
        boxes, centers: the objects; a centre of NaN attracts no point.
        radius: half the side of the sampling square in strides, None for the whole box (the conference version).
    """
    inside = nearest_side(points, boxes) > 0
    if radius is None:
        return inside
    (x, y), (center_x, center_y) = points.T[:, :, None], centers.T[:, None]
    reach = torch.maximum((x - center_x).abs(), (y - center_y).abs())
    return inside & (reach < radius * strides[:, None])


@dataclass(frozen=True)
class LevelRanges:
    """Which objects each pyramid level is responsible for: thesis 002, 3.2.2 and table 3.7.

    Attributes:
        limits: upper sizes m_i of all levels but the last, in pixels; a level starts where the one before ends.
        rule: what is compared with the limits. `distance`: max(l, t, r, b) of the location; `side`: max(h, w) / 2;
            `area`: sqrt(h w) / 2; `fpn`: no limits but level floor(5 + log2(sqrt(w h) / 224)) of FPN.
        inclusive: both ends of a range belong to it (AdelaiDet), or neither (detectron2, torchvision).
    """

    limits: tuple[float, ...] = (64.0, 128.0, 256.0, 512.0)
    rule: LevelRule = "distance"
    inclusive: bool = True

    def responsible(
        self,
        points: Float[Tensor, "l 2"],
        strides: Float[Tensor, " l"],
        levels: Int[Tensor, " l"],
        boxes: Float[Tensor, "n 4"],
    ) -> Bool[Tensor, "l n"]:
        """Whether the level of each location takes each object."""
        side = boxes[:, 2:] - boxes[:, :2]
        if self.rule == "fpn":
            wanted = torch.floor(5 + torch.log2(side.prod(dim=-1).sqrt() / 224))
            number = strides.log2()
            return number[:, None] == wanted.clamp(number.min(), number.max())[None]
        if self.rule == "distance":
            size = farthest_side(points, boxes)
        else:
            size = (side.prod(dim=-1).sqrt() if self.rule == "area" else side.amax(dim=-1))[None] / 2
        lower = points.new_tensor([-1.0, *self.limits])[levels][:, None]
        upper = points.new_tensor([*self.limits, float("inf")])[levels][:, None]
        return (size >= lower) & (size <= upper) if self.inclusive else (size > lower) & (size < upper)


def preferred_objects(
    allowed: Bool[Tensor, "l n"],
    points: Float[Tensor, "l 2"],
    boxes: Float[Tensor, "n 4"],
    centers: Float[Tensor, "n 2"],
    prefer: Preference = "smallest",
    count: int = 1,
) -> Int[Tensor, "l k"]:
    """Rows of the `count` allowed objects that each point prefers, best first; `BACKGROUND` where it is allowed fewer.

    Args:
        allowed: which objects each point could be trained on.
        points: the locations.
        boxes, centers: the objects; where nothing is allowed a centre may be NaN.
        prefer: `smallest`: the least area (thesis 002, 3.2.1); `nearest`: the centre nearest to the point (3.3.5, for crowds).
        count: objects a point (3.3.5: K, for multiple instance prediction).
    """
    if prefer == "smallest":
        cost = box_area(boxes)[None].expand(len(points), -1)
    else:
        cost = (points[:, None] - centers[None]).square().sum(dim=-1)
    # A last column that always costs infinitely: the minimum exists where there are no objects.
    cost = F.pad(torch.where(allowed, cost, float("inf")), (0, 1), value=float("inf"))
    best = [cost.min(dim=1)]
    while len(best) < count:
        cost = cost.scatter(1, best[-1].indices[:, None], float("inf"))
        best.append(cost.min(dim=1))
    return torch.stack([torch.where(one.values.isinf(), BACKGROUND, one.indices) for one in best], dim=1)


def match_by_iou(
    anchors: Float[Tensor, "l 4"],
    boxes: Float[Tensor, "n 4"],
    thresholds: tuple[float, float] = (0.4, 0.5),
    low_quality: float | None = 0.0,
) -> Int[Tensor, " l"]:
    """Row of the object each anchor overlaps most: RetinaNet's rule (Lin et al. 2017).

    Args:
        anchors, boxes: anchor boxes and objects.
        thresholds: IoU below the first is background, from the second on positive, `IGNORED` between.
        low_quality: the best anchors of every object are positive from this IoU on (Detectron used 0.4, detectron2 and
            torchvision any above 0); they keep the object that they themselves overlap most. None: no such rule.
    """
    iou = pairwise_iou(anchors, boxes)
    nothing = iou.new_zeros((len(iou), 1))
    best, row = torch.cat([iou, nothing], dim=1).max(dim=1)
    matched = torch.where(best >= thresholds[1], row, torch.where(best >= thresholds[0], IGNORED, BACKGROUND))
    if low_quality is not None:
        of_object = torch.cat([iou, iou.new_zeros((1, iou.shape[1]))]).amax(dim=0)
        # An object that no anchor touches has its best IoU, 0, everywhere: it claims none.
        claims = (iou == of_object) & (iou > 0) & (iou >= low_quality)
        matched = torch.where(claims.any(dim=1), row, matched)
    return matched


def ignore_crowds(
    matched: Int[Tensor, " l"], points: Float[Tensor, "l 2"], crowds: Float[Tensor, "m 4"] | None
) -> Int[Tensor, " l"]:
    """Background locations inside a crowd region become `IGNORED`: what they show is neither truth nor background."""
    if crowds is None:
        return matched
    inside = (nearest_side(points, crowds) > 0).any(dim=1)
    return torch.where((matched == BACKGROUND) & inside, IGNORED, matched)


def joined(rows: Sequence[Tensor]) -> tuple[Tensor, Int[Tensor, " b"]]:
    """Per-image tables as one, and the row at which each image's part starts."""
    counts = torch.tensor([0] + [len(r) for r in rows[:-1]], device=rows[0].device)
    return torch.cat(list(rows)), counts.cumsum(0)
