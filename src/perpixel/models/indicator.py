"""I^z of PointINS: a few numbers that say which box, as seen from a location, is meant.

Qi et al., section 3.2.2, equations 3 to 5, and what tables 4 and 5 put in their place.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.ops.boxes import distances_to_sides
from perpixel.structures import Candidates

Part = Literal["stride", "anchor", "center", "sides", "deltas", "features"]
LENGTHS: dict[Part, int] = {"stride": 1, "anchor": 3, "center": 2, "sides": 4, "deltas": 4}


@dataclass(frozen=True)
class Indicator:
    """What I^z holds. By default the 7 numbers that suit every detector; with `anchor` the 10 of RetinaNet.

    Attributes:
        parts: joined in the given order. s is the stride, (x, y) the location's point, which is its anchor's centre too.
            I^o (eq. 3): `stride` 1/s; `anchor` u/v, u/s, v/s of the anchor's height u and width v.
            I^q (eq. 4, 5): `center` r_x, r_y, from the point to the box's centre, over s; `sides` l, r, b, t, from the
            point to the box's sides, over s.
            Table 5: `deltas` in place of I^q, as Faster R-CNN regresses: centre shift over the anchor's size and log of the size
            ratio; without anchors a square of one stride stands for them. `features` in place of all: the tower's at the point.
        transform: table 5: log of I^o, sigmoid or tanh of everything.
    """

    parts: tuple[Part, ...] = ("stride", "center", "sides")
    transform: Literal["none", "log_anchor", "sigmoid", "tanh"] = "none"

    def __post_init__(self) -> None:
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise InputError(
                f"model.instance.indicator.parts={list(self.parts)} needs at least one part, and each once"
            )

    def length(self, tower_channels: int) -> int:
        """U, how many numbers there are."""
        return sum((LENGTHS | {"features": tower_channels})[part] for part in self.parts)

    def of(self, candidates: Candidates, features: Float[Tensor, "n c"]) -> Float[Tensor, "n u"]:
        """I^z of each candidate's box; `features` are the tower's at its point.

        Raises:
            InputError: the part `anchor`, on a detector that has none.
        """
        values = torch.cat([self._part(part, candidates, features) for part in self.parts], dim=1)
        match self.transform:
            case "sigmoid":
                return values.sigmoid()
            case "tanh":
                return values.tanh()
        return values

    def _part(self, part: Part, candidates: Candidates, features: Float[Tensor, "n c"]) -> Float[Tensor, "n _"]:
        if part == "features":
            return features
        boxes, points, stride = candidates.boxes, candidates.points, candidates.strides[:, None]
        shift = (boxes[:, :2] + boxes[:, 2:]) / 2 - points
        size = boxes[:, 2:] - boxes[:, :2]
        if part == "center":
            return shift / stride
        if part == "sides":
            left, top, right, bottom = distances_to_sides(points, boxes).T
            return torch.stack([left, right, bottom, top], dim=1) / stride
        if part == "deltas":
            anchors = candidates.anchors
            reference = stride if anchors is None else anchors[:, 2:] - anchors[:, :2]
            return torch.cat([shift / reference, (size / reference).clamp(min=1e-3).log()], dim=1)
        known = 1 / stride if part == "stride" else anchor_shape(candidates)
        return known.log() if self.transform == "log_anchor" else known


def anchor_shape(candidates: Candidates) -> Float[Tensor, "n 3"]:
    """u/v, u/s and v/s of each anchor's height u and width v.

    Raises:
        InputError: the detector has no anchors.
    """
    if candidates.anchors is None:
        raise InputError("model.instance.indicator.parts: leave out 'anchor', this detector has none; RetinaNet has")
    width, height = (candidates.anchors[:, 2:] - candidates.anchors[:, :2]).T
    return torch.stack([height / width, height / candidates.strides, width / candidates.strides], dim=1)
