"""The detector: backbone, neck, box head and, for masks or keypoints, one instance head.

It knows no method. Training: dense outputs -> matches -> losses, and candidates for the instance head. Inference: dense
outputs -> NMS -> candidates -> detections, and what the instance head adds to them.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.candidates import Selection, to_detections
from perpixel.models.duplicates import BoxNMS, KeypointNMS, MaskNMS, SetNMS
from perpixel.models.fcos import FCOS
from perpixel.models.heads import BoxHead, BoxHeadConfig, InstanceHead, InstanceHeadConfig, Losses, Model, ModelConfig
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN, Maps, Neck, NeckConfig
from perpixel.nn.layers import Pixels
from perpixel.structures import Batch, BoxMasks, Candidates, DenseOutputs, Detections, ImageMasks, Keypoints


@dataclass(frozen=True)
class DetectorConfig(ModelConfig):
    """Settings of a detector.

    Attributes:
        pixels: how pixels enter the backbone.
        backbone, neck: where the pyramid comes from.
        head: predicts boxes.
        instance: adds masks or keypoints to them; None for boxes alone.
        selection: how dense outputs become detections.
        duplicates: what tells them: boxes, masks or keypoints.
        box_stride: stride of the finest level that the box head reads; finer ones are for the instance head alone. None: it reads
            all of the pyramid.
    """

    pixels: Pixels = field(default_factory=Pixels)
    backbone: Backbone = field(default_factory=Backbone)
    neck: NeckConfig = field(default_factory=FPN)
    head: BoxHeadConfig = field(default_factory=FCOS)
    instance: InstanceHeadConfig | None = None
    selection: Selection = field(default_factory=Selection)
    duplicates: BoxNMS | SetNMS | MaskNMS | KeypointNMS = field(default_factory=BoxNMS)
    box_stride: int | None = None

    def box_strides(self) -> tuple[int, ...]:
        """Strides of the levels that the box head reads, finest first."""
        pyramid = self.neck.pyramid_strides(tuple(sorted(self.backbone.stages)))
        if self.box_stride is not None and self.box_stride not in pyramid:
            raise InputError(
                f"model.box_stride={self.box_stride} is no level of the pyramid: its strides are {list(pyramid)}"
            )
        return tuple(stride for stride in pyramid if stride >= (self.box_stride or 0))

    def keypoint_names(self) -> tuple[str, ...]:
        """Those of the instance head."""
        return () if self.instance is None else self.instance.keypoint_names()

    def build(self, classes: int, stuff: int = 0) -> "Detector":
        """The detector for `classes` classes; stuff is background to it."""
        if not classes:
            raise InputError(
                "a detector needs classes of objects, and the data have none: take arch2_mobilenetv2 for pixels"
            )
        backbone = self.backbone.build()
        neck = self.neck.build(backbone.channels, backbone.strides)
        strides = self.box_strides()
        head = self.head.build(neck.channels, strides, classes)
        instance = None
        if self.instance is not None:
            maps = dict(zip(backbone.strides, backbone.channels, strict=True))
            instance = self.instance.build_among(maps, dict.fromkeys(neck.strides, neck.channels), strides, classes)
        if isinstance(self.duplicates, MaskNMS) and instance is None:
            raise InputError("model.duplicates.kind=MaskNMS needs masks: choose model.instance.kind, or BoxNMS")
        if isinstance(self.duplicates, SetNMS) and not isinstance(self.head, FCOS):
            raise InputError(
                "model.duplicates.kind=SetNMS keeps all boxes of a cell, and those of anchors stand for the same object: "
                "set model.duplicates.kind=BoxNMS, or model.head.kind=FCOS"
            )
        if isinstance(self.duplicates, BoxNMS | SetNMS) and not head.predicts_boxes:
            raise InputError(
                "model.head predicts no boxes that tell duplicates: set model.duplicates.kind=MaskNMS, or KeypointNMS"
            )
        finer = len(neck.strides) - len(strides)
        return Detector(self.pixels, backbone, neck, head, instance, self.selection, self.duplicates, finer)


class Detector(Model):
    """Boxes, and what an instance head says of them; the box head does not read the `finer` first levels of the pyramid."""

    def __init__(
        self,
        pixels: Pixels,
        backbone: torch.nn.Module,
        neck: Neck,
        box_head: BoxHead,
        instance_head: InstanceHead | None,
        selection: Selection,
        duplicates: BoxNMS | SetNMS | MaskNMS | KeypointNMS,
        finer: int,
    ):
        super().__init__()
        self.pixels = pixels
        self.backbone = backbone
        self.neck = neck
        self.box_head = box_head
        self.instance_head = instance_head
        self.selection = selection
        self.duplicates = duplicates
        self.finer = finer

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[DenseOutputs, Any]:
        """Everything that is dense and static: the box head's outputs and the instance head's image-level work."""
        maps = self.backbone(images)
        return self.heads(maps, self.neck(maps))

    def heads(self, maps: Maps, levels: Maps) -> tuple[DenseOutputs, Any]:
        """What `forward` returns, from the backbone's maps and all levels of the pyramid."""
        finer, pyramid = levels[: self.finer], levels[self.finer :]
        outputs = self.box_head(pyramid)
        if self.instance_head is None:
            return outputs, None
        return outputs, self.instance_head(pyramid, outputs.beside(maps, finer))

    def normalized(self, batch: Batch) -> Float[Tensor, "b 3 h w"]:
        """The batch's images as the backbone takes them."""
        return self.pixels.normalize(batch.images, batch.sizes)

    def loss(self, batch: Batch) -> Losses:
        """Losses of the box head, and those of the instance head under their own names."""
        outputs, dense = self(self.normalized(batch))
        return self.losses(outputs, dense, batch)

    def losses(self, outputs: DenseOutputs, dense: Any, batch: Batch) -> Losses:
        """The losses of what `forward` returned."""
        targets = batch.truth()
        if self.instance_head is not None:
            targets = self.instance_head.retarget(targets)
            batch = replace(batch, targets=targets)
        with torch.autocast(batch.images.device.type, enabled=False):
            matches = self.box_head.assign(outputs.locations, targets)
            losses = self.box_head.loss(outputs, matches, targets)
            if self.instance_head is not None:
                candidates = self.instance_head.choose(outputs, matches, batch)
                losses |= self.instance_head.loss(dense, candidates, batch)
        return losses

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[Detections]:
        """What is in each image, best first, in pixels of the network's input."""
        outputs, dense = self(self.normalized(batch))
        return self.detections(outputs, dense, batch)

    def detections(self, outputs: DenseOutputs, dense: Any, batch: Batch) -> list[Detections]:
        """What `forward` returned, as detections of each image."""
        predict = partial(self.describe, dense)
        candidates, more = self.duplicates.find(self.selection, outputs, batch.sizes, predict)
        return to_detections(candidates, more, batch.sizes)

    def describe(self, dense: Any, candidates: Candidates) -> BoxMasks | ImageMasks | Keypoints | None:
        """What the instance head says of candidates; None where there is none."""
        return None if self.instance_head is None else self.instance_head.predict(dense, candidates)
