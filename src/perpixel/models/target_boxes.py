"""Which points train PointINS, and in which box each one's mask is drawn: Qi et al., section 3.3 and tables 8 to 10."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.candidates import positives
from perpixel.models.mask_truth import drawn
from perpixel.ops.assign import match_by_iou
from perpixel.ops.boxes import overlap
from perpixel.ops.groups import rows_by
from perpixel.structures import Candidates, DenseOutputs, Matches, Targets


@dataclass(frozen=True)
class Shares:
    """How often each kind of box is a point's target box (table 10).

    Attributes:
        anchor: the anchor; where a detector has none, the other two share its part in their proportion.
        truth: the object's box.
        regressed: the box that the detector predicts, detached.
    """

    anchor: float = 0.05
    truth: float = 0.05
    regressed: float = 0.9

    def __post_init__(self) -> None:
        values = (self.anchor, self.truth, self.regressed)
        if min(values) < 0 or abs(sum(values) - 1) > 1e-6:
            raise InputError(
                f"model.instance.points.shares={list(values)} are parts of a whole: from 0 on, and 1 together"
            )


@dataclass(frozen=True)
class OverlappingPoints:
    """Points whose anchor and target box both overlap an object.

    The target box is drawn first and must then pass: so anchors and true boxes teach from the first step on, when no regressed
    box is good enough yet (the paper's explanation of table 10).

    Attributes:
        anchor_iou: least IoU of the anchor with the object that it overlaps most. A point of FCOS has no extent: there the
            detector's own positives stand for it, because the paper's reason for the rule is that other boxes are not trained
            (table 9). A square of a fixed size around each point would leave long and small objects without any.
        box_iou: what the target box's IoU with that object must exceed.
        limit: of the points of an image, drawn at random; None: all. (An image's, not a batch's: 3.3 draws them out of
            "22,000+ points", as many as one image has.)
        shares: of the kinds of target box.
    """

    anchor_iou: float = 0.5
    box_iou: float = 0.5
    limit: int | None = 128
    shares: Shares = field(default_factory=Shares)

    def choose(self, outputs: DenseOutputs, matches: Matches, targets: Sequence[Targets]) -> Candidates:
        """The points, by image and location, of objects whose masks are known; their `boxes` are target boxes from here on."""
        found = positives(outputs, self.matches(outputs, matches, targets), targets)
        found = found.rows(drawn(found, tuple(targets)))
        boxes = self.target_boxes(found)
        passing = overlap(boxes, found.boxes)[0] > self.box_iou
        found = replace(found, boxes=boxes).rows(passing)
        of_images = rows_by(found.image, len(targets))
        chosen = [rows[torch.randperm(len(rows), device=rows.device)[: self.limit]] for rows in of_images]
        return found.rows(torch.cat(chosen).sort().values)

    def matches(self, outputs: DenseOutputs, matches: Matches, targets: Sequence[Targets]) -> Matches:
        """The object each anchor overlaps most, if enough; the detector's `matches` where there are no anchors."""
        anchors = outputs.locations.anchors
        if anchors is None:
            return matches
        thresholds = (self.anchor_iou, self.anchor_iou)
        return Matches(torch.stack([match_by_iou(anchors, target.boxes, thresholds, None) for target in targets]))

    def target_boxes(self, found: Candidates) -> Float[Tensor, "n 4"]:
        """A box for each point, drawn by the shares from PyTorch's global generator."""
        count, device = len(found), found.boxes.device
        kinds = self.draw(count, found.anchors is not None, device)
        boxes = torch.stack([found.predicted if found.anchors is None else found.anchors, found.boxes, found.predicted])
        return boxes[kinds, torch.arange(count, device=device)]

    def draw(self, count: int, anchors: bool, device: torch.device) -> Int[Tensor, " n"]:
        """The kind of each target box: 0 anchor, 1 truth, 2 regressed."""
        shares = torch.tensor([self.shares.anchor * anchors, self.shares.truth, self.shares.regressed])
        if shares.sum() == 0:
            raise InputError("model.instance.points.shares.anchor=1 needs a detector with anchors, such as RetinaNet")
        limits = (shares / shares.sum()).cumsum(0)[:2].to(device)
        return torch.bucketize(torch.rand(count, device=device), limits, right=True)
