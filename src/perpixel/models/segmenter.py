"""Semantic segmentation by an encoder and a compact decoder given as data: arch2 (Nekrasov et al. 2019; thesis 004, 6.3.1).

The encoder is a light classifier; its maps of strides 4 to 32 are decoded to ``dec``, from which a 3x3 convolution classifies.
In training every merge of the decoder is classified too. All classes are stuff: there are no objects to count.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.models.heads import Losses, Model, ModelConfig
from perpixel.models.mask_losses import pixel_cross_entropy
from perpixel.nn.backbones import Backbone
from perpixel.nn.decoder import ARCH2, ENCODER_STRIDES, Decoder, DecoderGenotype
from perpixel.nn.layers import Pixels
from perpixel.ops.panoptic import class_map
from perpixel.structures import VOID, Batch, Detections, Segments

Maps = tuple[Float[Tensor, "b _ _ _"], ...]


@dataclass(frozen=True)
class Segmenter(ModelConfig):
    """Settings: an encoder, a decoder as data, how much auxiliary classifiers count.

    Attributes:
        backbone: the encoder; it must have maps of strides 4, 8, 16 and 32.
        pixels: how images enter it.
        decoder: what the decoder is.
        width: channels of the decoder.
        auxiliary: weight of the loss of the merges' own classifiers, together (appendix A.1: 0.3).
    """

    backbone: Backbone = field(
        default_factory=lambda: Backbone(
            "mobilenetv2_100.ra_in1k", stages=ENCODER_STRIDES, norm="train", frozen_stages=0
        )
    )
    pixels: Pixels = field(default_factory=Pixels)
    decoder: DecoderGenotype = ARCH2
    width: int = 64
    auxiliary: float = 0.3

    def build(self, classes: int, stuff: int = 0) -> "SegmenterModel":
        """The model for `stuff` classes of pixels.

        Raises:
            InputError: there are classes of objects, or none of stuff.
        """
        self.check(classes, stuff)
        return SegmenterModel(self, stuff)

    def check(self, classes: int, stuff: int) -> None:
        """Refuses data that are not all stuff.

        Raises:
            InputError: says which setting mends it.
        """
        if classes or not stuff:
            raise InputError(
                "a semantic model learns the class of every pixel and counts no objects: set data.stuff=all, on CamVid,"
                " Cityscapes, a COCO panoptic json or scenes:200"
            )
        if self.backbone.stages != ENCODER_STRIDES:
            raise InputError(
                f"model.backbone.stages={list(self.backbone.stages)} must be [4, 8, 16, 32] for the decoder"
            )


class SegmenterModel(Model):
    """An encoder, a decoder and classifiers of pixels."""

    def __init__(self, config: Segmenter, classes: int):
        super().__init__()
        self.pixels = config.pixels
        self.weight = config.auxiliary
        self.backbone = config.backbone.build()
        self.decoder = Decoder(config.decoder, self.backbone.channels, config.width)
        self.classifier = _classifier(config.width, classes)
        self.auxiliary = nn.ModuleList(_classifier(config.width, classes) for _ in config.decoder.merges)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Maps:
        """The encoder's maps of normalised images, strides 4, 8, 16 and 32."""
        # The weights may be bfloat16 (`perpixel.engine.fast`).
        return self.backbone(images.to(self.classifier.weight.dtype))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b k h8 w8"], list[Tensor]]:
        """Class logits at the decoder's stride, and the decoder's merges."""
        dec, merges = self.decoder(self.encode(images))
        return self.classifier(dec), merges

    def loss(self, batch: Batch) -> Losses:
        """Mean cross entropy of the pixels whose class is known, of the output and of the auxiliary classifiers."""
        logits, merges = self(self.pixels.normalize(batch.images, batch.sizes))
        return self.losses(logits, merges, class_truth(batch))

    def losses(self, logits: Tensor, merges: list[Tensor], truth: Int[Tensor, "b h w"]) -> Losses:
        """The losses of what `forward` returned."""
        extra = [classify(one) for classify, one in zip(self.auxiliary, merges, strict=True)]
        with torch.autocast(logits.device.type, enabled=False):
            auxiliary = torch.stack([pixel_cross_entropy(one.float(), truth) for one in extra]).mean()
            return {"pixels": pixel_cross_entropy(logits.float(), truth), "auxiliary": self.weight * auxiliary}

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[Detections]:
        """The segments of each photo: one a class that is there, and no objects."""
        logits, _ = self(self.pixels.normalize(batch.images, batch.sizes))
        return self.segmented(logits, batch)

    def segmented(self, logits: Float[Tensor, "b k h w"], batch: Batch) -> list[Detections]:
        """The class of largest logit at every pixel of each photo, as segments."""
        none = logits.new_zeros((0, 4), dtype=torch.float32)
        labels = torch.zeros(0, dtype=torch.int64, device=logits.device)
        return [
            Detections(none, none[:, 0], labels, size, segments=_by_class(mine, self.decoder.stride, size, original))
            for mine, size, original in zip(logits, batch.sizes, batch.originals or batch.sizes, strict=True)
        ]


def class_truth(batch: Batch) -> Int[Tensor, "b h w"]:
    """The class of every pixel of the batch's images, `VOID` where it is not known; of images without truth all is void.

    Raises:
        InputError: the data were read without maps of stuff.
    """
    if batch.targets is None:
        shape = (len(batch), *batch.images.shape[2:])
        return torch.full(shape, VOID, dtype=torch.int64, device=batch.images.device)
    maps = [target.stuff for target in batch.targets]
    if any(one is None for one in maps):
        raise InputError("a semantic model learns from maps of classes and the data came without: set data.stuff=all")
    stuff = torch.stack([one for one in maps if one is not None]).long()
    # Pixels of objects (0) have no class of stuff.
    return torch.where((stuff == VOID) | (stuff == 0), VOID, stuff - 1)


def _classifier(width: int, classes: int) -> nn.Conv2d:
    return nn.Conv2d(width, classes, 3, padding=1)


def _by_class(
    logits: Float[Tensor, "k h w"], stride: int, size: tuple[int, int], original: tuple[int, int]
) -> Segments:
    classes = class_map(logits, stride, size, original)
    there = torch.bincount(classes.flatten(), minlength=len(logits)) > 0
    labels = torch.nonzero(there).squeeze(1)
    rows = there.cumsum(0).int() - 1
    return Segments(rows[classes], labels, torch.ones(len(labels)).to(labels.device), torch.zeros_like(labels).bool())
