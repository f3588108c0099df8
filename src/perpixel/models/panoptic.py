"""Panoptic segmentation: any detector with masks, Panoptic FPN's semantic branch beside it, and a rule that merges the two.

Kirillov et al. 2019; thesis 004, 4.4.4. The detector finds objects, the branch says of every pixel which stuff it is, or that it
is an object; at inference the objects' masks are laid on the map of stuff.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.detector import Detector, DetectorConfig
from perpixel.models.heads import Losses, Model, ModelConfig
from perpixel.models.mask_losses import pixel_cross_entropy
from perpixel.nn.backbones import Backbone
from perpixel.nn.stuff_branch import StuffBranch
from perpixel.ops.mask_windows import windows
from perpixel.ops.panoptic import Merge, class_map, merge
from perpixel.structures import Batch, DenseOutputs, Detections, Segments, Targets

COARSEST = 32
"""Stride of the coarsest level that the branch reads: P6 and P7 are the detector's alone."""


@dataclass(frozen=True)
class PanopticFPN(ModelConfig):
    """Settings: a detector with masks, a semantic branch, the rule that merges them.

    Attributes:
        detector: finds the objects. Its backbone gives the map of stride 4 too, so that the branch has P2; `box_stride` keeps
            the detector's own heads at P3 and above.
        width: channels of the branch.
        weight: of its cross entropy (released models: 0.5).
        merge: how objects and stuff share the pixels.
    """

    detector: DetectorConfig = field(
        default_factory=lambda: DetectorConfig(backbone=Backbone(stages=(4, 8, 16, 32)), box_stride=8)
    )
    width: int = 128
    weight: float = 0.5
    merge: Merge = field(default_factory=Merge)

    def build(self, classes: int, stuff: int = 0) -> "PanopticModel":
        """The model for `classes` classes of objects and `stuff` classes of stuff."""
        if not stuff:
            raise InputError(
                "a panoptic model needs classes of stuff, and the data have none: name a COCO panoptic json, Cityscapes' split"
                " or scenes:200 as data.train"
            )
        if self.detector.instance is None:
            raise InputError("a panoptic model needs masks: choose model.detector.instance.kind, such as CondInst")
        detector = self.detector.build(classes)
        strides = tuple(stride for stride in detector.neck.strides if stride <= COARSEST)
        branch = StuffBranch(detector.neck.channels, strides, self.width, stuff + 1)
        return PanopticModel(detector, branch, classes, self.weight, self.merge)


class PanopticModel(Model):
    """A detector and a semantic branch on one pyramid."""

    def __init__(self, detector: Detector, branch: StuffBranch, things: int, weight: float, rule: Merge):
        super().__init__()
        self.detector = detector
        self.branch = branch
        self.things = things
        self.weight = weight
        self.rule = rule

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[DenseOutputs, Any, Float[Tensor, "b k h4 w4"]]:
        """The detector's dense outputs, and logits of stuff: channel 0 is an object of any class."""
        maps = self.detector.backbone(images)
        levels = self.detector.neck(maps)
        outputs, dense = self.detector.heads(maps, levels)
        return outputs, dense, self.branch(levels[: len(self.branch.levels)])

    def loss(self, batch: Batch) -> Losses:
        """The detector's losses, and the mean cross entropy of the pixels whose class is known."""
        outputs, dense, logits = self(self.detector.normalized(batch))
        losses = self.detector.losses(outputs, dense, batch)
        with torch.autocast(batch.images.device.type, enabled=False):
            return losses | {"stuff": self.weight * stuff_loss(logits.float(), batch.truth())}

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[Detections]:
        """The detections of each image, and its segments."""
        outputs, dense, logits = self(self.detector.normalized(batch))
        found = self.detector.detections(outputs, dense, batch)
        originals = batch.originals or batch.sizes
        return [
            replace(one, segments=self.segments(one, mine, original))
            for one, mine, original in zip(found, logits, originals, strict=True)
        ]

    def segments(self, found: Detections, logits: Float[Tensor, "k h w"], original_size: tuple[int, int]) -> Segments:
        """The segments of a photo of (height, width) `original_size`."""
        if found.masks is None:
            raise InputError(
                "a panoptic model needs masks, and this instance head predicts none: change model.detector.instance.kind"
            )
        return laid_on(class_map(logits, self.branch.stride, found.size, original_size), found, self.things, self.rule)


def laid_on(stuff: Int[Tensor, "h w"], found: Detections, things: int, rule: Merge) -> Segments:
    """The segments of a photo: the objects found, the best first, on its map of stuff (see `perpixel.ops.panoptic.merge`)."""
    assert found.masks is not None
    original_size = (stuff.shape[0], stuff.shape[1])
    height, width = (new / old for new, old in zip(original_size, found.size, strict=True))
    boxes = found.boxes.float() * found.boxes.new_tensor([width, height, width, height])
    masks = windows(found.masks, boxes, found.size, original_size)
    return merge(masks, found.labels, found.scores, stuff, things, rule)


def stuff_loss(logits: Float[Tensor, "b k h w"], targets: Sequence[Targets]) -> Float[Tensor, ""]:
    """Mean cross entropy at every pixel of the input that is not void, the logits enlarged to it.

    Raises:
        InputError: the data were read without maps of stuff.
    """
    maps = [target.stuff for target in targets]
    if any(one is None for one in maps):
        raise InputError("a panoptic model learns from maps of stuff and the data came without: set data.stuff=true")
    return pixel_cross_entropy(logits, torch.stack([one for one in maps if one is not None]))
