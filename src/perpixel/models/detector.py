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
from perpixel.models.fcos import FCOS
from perpixel.models.heads import BoxHead, BoxHeadConfig, InstanceHead, InstanceHeadConfig, Losses, Model, ModelConfig
from perpixel.models.mask_nms import MaskNMS
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN, Neck, NeckConfig
from perpixel.nn.layers import Pixels
from perpixel.structures import Batch, DenseOutputs, Detections, Keypoints


@dataclass(frozen=True)
class DetectorConfig(ModelConfig):
    """Settings of a detector.

    Attributes:
        pixels: how pixels enter the backbone.
        backbone, neck: where the pyramid comes from.
        head: predicts boxes.
        instance: adds masks or keypoints to them; None for boxes alone.
        selection: how dense outputs become detections.
        mask_nms: suppress duplicates by the overlap of their masks as well; None by boxes alone.
    """

    pixels: Pixels = field(default_factory=Pixels)
    backbone: Backbone = field(default_factory=Backbone)
    neck: NeckConfig = field(default_factory=FPN)
    head: BoxHeadConfig = field(default_factory=FCOS)
    instance: InstanceHeadConfig | None = None
    selection: Selection = field(default_factory=Selection)
    mask_nms: MaskNMS | None = None

    def build(self, classes: int) -> "Detector":
        """The detector for `classes` classes."""
        backbone = self.backbone.build()
        neck = self.neck.build(backbone.channels, backbone.strides)
        head = self.head.build(neck.channels, neck.strides, classes)
        instance = None
        if self.instance is not None:
            instance = self.instance.build(neck.channels, neck.channels, neck.strides, classes)
        if self.mask_nms is not None and instance is None:
            raise InputError("model.mask_nms needs masks: choose model.instance.kind, or set model.mask_nms=null")
        if self.mask_nms is not None and self.selection.instances == "before_nms":
            raise InputError("model.mask_nms works for what box NMS leaves: set model.selection.instances=after_nms")
        if self.mask_nms is None and not head.predicts_boxes:
            raise InputError("model.head predicts no boxes to suppress duplicates by: set model.mask_nms.kind=MaskNMS")
        return Detector(self.pixels, backbone, neck, head, instance, self.selection, self.mask_nms)


class Detector(Model):
    """Boxes, and what an instance head says of them."""

    def __init__(
        self,
        pixels: Pixels,
        backbone: torch.nn.Module,
        neck: Neck,
        box_head: BoxHead,
        instance_head: InstanceHead | None,
        selection: Selection,
        mask_nms: MaskNMS | None = None,
    ):
        super().__init__()
        self.pixels = pixels
        self.backbone = backbone
        self.neck = neck
        self.box_head = box_head
        self.instance_head = instance_head
        self.selection = selection
        self.mask_nms = mask_nms

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[DenseOutputs, Any]:
        """Everything that is dense and static: the box head's outputs and the instance head's image-level work."""
        pyramid = self.neck(self.backbone(images))
        outputs = self.box_head(pyramid)
        return outputs, self.instance_head(pyramid, outputs) if self.instance_head is not None else None

    def normalized(self, batch: Batch) -> Float[Tensor, "b 3 h w"]:
        """The batch's images as the backbone takes them."""
        return self.pixels.normalize(batch.images, batch.sizes)

    def loss(self, batch: Batch) -> Losses:
        """Losses of the box head, and those of the instance head under their own names."""
        targets = batch.truth()
        outputs, dense = self(self.normalized(batch))
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
        entering = self.selection.entering(outputs, batch.sizes)
        surviving = self.selection.surviving(entering, len(batch.sizes))
        candidates = entering.rows(surviving)
        if self.mask_nms is not None and self.instance_head is not None:
            candidates = self.mask_nms.choose(candidates, partial(self.instance_head.predict, dense), batch.sizes)
        parts = to_detections(candidates, batch.sizes)
        if self.instance_head is None:
            return [found for _, found in parts]
        if self.selection.instances == "before_nms":
            more = self.instance_head.predict(dense, entering).rows(surviving)
        else:
            more = self.instance_head.predict(dense, candidates)
        kind = "keypoints" if isinstance(more, Keypoints) else "masks"
        return [replace(found, **{kind: more.rows(rows)}) for rows, found in parts]
