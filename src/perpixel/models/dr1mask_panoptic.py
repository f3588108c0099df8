"""Panoptic DR1Mask: one layer on the features that masks are made of says of every pixel which stuff or which object it is.

Chen, thesis 004, 5.4.3. The layer's weights are W_pano = [W_stuff, W_thing] (eq. 5.9): those of stuff are learned, those of an
object are its embedding. There is no semantic branch: stuff costs one matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.models.candidates import to_detections
from perpixel.models.detector import Detector, DetectorConfig
from perpixel.models.dr1mask import DR1Mask, DR1MaskHead, Maps
from perpixel.models.heads import Losses, Model, ModelConfig
from perpixel.models.mask_truth import drawn_masks
from perpixel.nn.attention import Vector
from perpixel.ops.assign import joined
from perpixel.ops.boxes import pairwise_iou
from perpixel.ops.panoptic import Merge, class_map
from perpixel.ops.reduce import mean_over_ranks
from perpixel.ops.unified import channel_map, kept_objects, mean_embeddings, unified_loss
from perpixel.structures import VOID, Batch, Candidates, DenseOutputs, Detections, Segments, Targets

OF_PANOPTIC = DR1Mask(width=64, attention=Vector(), semantic_weight=0.0)
"""64 channels tell stuff better (table 5.6), attentions with positions harm stuff (table 5.7), and stuff is a loss of its own."""


@dataclass(frozen=True)
class DR1MaskPanoptic(ModelConfig):
    """Settings: a detector with DR1Mask, and how its features become segments.

    Attributes:
        detector: its instance head is a DR1Mask. With a weight a channel an object's logits are one matrix product; attentions
            over boxes are laid on the image, and teach the features positions that stuff has no use for (table 5.7).
        weight: of the cross entropy over stuff and objects. The detector's own losses stay, that of the masks in boxes too: the
            same embeddings are supervised separately there (5.4.3).
        divisor: sides of the input are brought to multiples of it; less padding harms borders less (table 5.5).
        embedding: at inference an object's weights are the embedding of the detection that survived NMS, or the mean of that and
            of those that it suppressed, as the weights in training are means.
        merge: lowest score of objects, share of its mask that an object may lose to better ones, least area of stuff.
    """

    detector: DetectorConfig = field(default_factory=lambda: DetectorConfig(instance=OF_PANOPTIC))
    weight: float = 1.0
    divisor: int = 4
    embedding: Literal["survivor", "mean"] = "survivor"
    merge: Merge = field(default_factory=Merge)

    def __post_init__(self) -> None:
        if self.divisor < 4 or self.divisor & (self.divisor - 1):
            raise InputError(f"model.divisor={self.divisor} is not 4, 8, 16, 32, 64 or 128")

    def build(self, classes: int, stuff: int = 0) -> "DR1MaskPanopticModel":
        """The model for `classes` classes of objects and `stuff` classes of stuff."""
        if not stuff:
            raise InputError(
                "a panoptic model needs classes of stuff, and the data have none: name a COCO panoptic json, Cityscapes' split"
                " or scenes:200 as data.train"
            )
        instance = self.detector.instance
        if not isinstance(instance, DR1Mask):
            raise InputError("this model lays DR1Mask's objects on the image: set model.detector.instance.kind=DR1Mask")
        return DR1MaskPanopticModel(self, self.detector.build(classes), instance.width, classes, stuff)


class DR1MaskPanopticModel(Model):
    """A detector, and the static part of the unified layer."""

    def __init__(self, config: DR1MaskPanoptic, detector: Detector, width: int, things: int, stuff: int):
        super().__init__()
        self.config = config
        self.detector = detector
        self.things = things
        self.stuff = nn.Conv2d(width, stuff, 1)
        # Every class as likely as any other at first, whatever their number.
        nn.init.normal_(self.stuff.weight, std=0.01)
        nn.init.zeros_(self.stuff.bias)  # pyright: ignore[reportArgumentType]

    @property
    def head(self) -> DR1MaskHead:
        """The detector's instance head."""
        assert isinstance(self.detector.instance_head, DR1MaskHead)
        return self.detector.instance_head

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[DenseOutputs, Maps]:
        """What the detector says, and the maps of its instance head: there is nothing to add."""
        return self.detector(images)

    def logits(
        self, features: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"], embeddings: Float[Tensor, "n e"]
    ) -> Float[Tensor, "c h w"]:
        """Y of eq. 5.9: of every step, the stuff first, then the objects whose boxes and embeddings these are."""
        features = features.to(embeddings.dtype)
        stuff = F.conv2d(features[None], self.stuff.weight, self.stuff.bias)[0]
        return torch.cat([stuff, self.head.attention.over_image(features, boxes, embeddings, self.head.stride)])

    def loss(self, batch: Batch) -> Losses:
        """The detector's losses, and the mean cross entropy of the pixels whose channel is known."""
        batch = framed(batch, self.config.divisor)
        outputs, dense = self(self.detector.normalized(batch))
        targets, box_head = batch.truth(), self.detector.box_head
        with torch.autocast(batch.images.device.type, enabled=False):
            matches = box_head.assign(outputs.locations, targets)
            losses = box_head.loss(outputs, matches, targets)
            candidates = self.head.choose(outputs, matches, batch)
            embeddings = self.head.embeddings(dense, candidates)
            losses |= self.head.losses(dense, candidates, embeddings, batch)
            return losses | {
                "panoptic": self.config.weight * self.panoptic_loss(dense, candidates, embeddings, targets)
            }

    def panoptic_loss(
        self, dense: Maps, candidates: Candidates, embeddings: Float[Tensor, "n e"], targets: Sequence[Targets]
    ) -> Float[Tensor, ""]:
        """Mean cross entropy over stuff and true objects, whose weights are the means of their positives' embeddings."""
        counts = [len(target) for target in targets]
        _, first = joined([target.labels for target in targets])
        assert candidates.target is not None
        owner = first[candidates.image] + candidates.target
        things, known = mean_embeddings(embeddings, owner, sum(counts))
        logits, channels = [], []
        parts = zip(dense.features, things.split(counts), known.split(counts), targets, strict=True)
        for features, of_image, there, target in parts:
            logits.append(self.logits(features, target.boxes[there], of_image[there]))
            channels.append(channel_map(_with_stuff(target), there, self.stuff.out_channels))
        total, count = unified_loss(logits, channels, self.head.stride)
        return total / mean_over_ranks(count.to(total.dtype)).clamp(min=1)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[Detections]:
        """The detections of each image, and its segments."""
        batch = framed(batch, self.config.divisor)
        outputs, dense = self(self.detector.normalized(batch))
        detector = self.detector
        describe = partial(detector.describe, dense)
        candidates, masks = detector.duplicates.find(detector.selection, outputs, batch.sizes, describe)
        embeddings = self.embeddings(outputs, dense, candidates, batch)
        segmented = []
        for image, found in enumerate(to_detections(candidates, masks, batch.sizes)):
            things = embeddings[candidates.image == image]
            original = (batch.originals or batch.sizes)[image]
            segmented.append(replace(found, segments=self.segments(found, dense.features[image], things, original)))
        return segmented

    def embeddings(
        self, outputs: DenseOutputs, dense: Maps, candidates: Candidates, batch: Batch
    ) -> Float[Tensor, "n e"]:
        """The weights of the objects that these detections are."""
        own = self.head.embeddings(dense, candidates)
        if self.config.embedding == "survivor" or not len(candidates):
            return own
        entering = self.detector.selection.entering(outputs, batch.sizes)
        same = (entering.image[:, None] == candidates.image) & (entering.labels[:, None] == candidates.labels)
        overlap, owner = torch.where(same, pairwise_iou(entering.boxes, candidates.boxes), 0).max(dim=1)
        alike = overlap > self.detector.selection.iou
        mean, known = mean_embeddings(self.head.embeddings(dense, entering.rows(alike)), owner[alike], len(candidates))
        # A box of no area overlaps nothing, not even itself.
        return torch.where(known[:, None], mean, own)

    def segments(
        self,
        found: Detections,
        features: Float[Tensor, "d h w"],
        embeddings: Float[Tensor, "n e"],
        original_size: tuple[int, int],
    ) -> Segments:
        """The segments of a photo of (height, width) `original_size`: of each pixel the best channel's."""
        rule, stuff = self.config.merge, self.stuff.out_channels
        wanted = int((found.scores >= rule.score).sum())
        logits = self.logits(features, found.boxes[:wanted], embeddings[:wanted])
        rows = kept_objects(logits, found.boxes[:wanted], self.head.stride, rule.overlap)
        chosen = torch.cat([torch.arange(stuff, device=logits.device), stuff + rows])
        best = class_map(logits[chosen], self.head.stride, found.size, original_size)
        areas = torch.bincount(best.flatten(), minlength=len(chosen))
        kinds = torch.nonzero(areas[:stuff] >= max(rule.stuff_area, 1)).squeeze(1)
        objects = torch.nonzero(areas[stuff:]).squeeze(1)
        row_of = torch.full_like(areas, -1, dtype=torch.int32)
        shown = torch.cat([stuff + objects, kinds])
        row_of[shown] = torch.arange(len(shown), dtype=torch.int32, device=shown.device)
        scores = torch.cat([found.scores[rows[objects]].float(), torch.ones_like(kinds, dtype=torch.float32)])
        labels = torch.cat([found.labels[rows[objects]], self.things + kinds])
        return Segments(row_of[best], labels, scores, torch.zeros_like(shown, dtype=torch.bool))


def _with_stuff(target: Targets) -> Targets:
    """The same target.

    Raises:
        InputError: the data were read without maps of stuff, or without the mask of every object.
    """
    drawn_masks(target)
    if target.stuff is None:
        raise InputError("a panoptic model learns from maps of stuff and the data came without: set data.stuff=true")
    return target


def framed(batch: Batch, divisor: int) -> Batch:
    """The same images in as little padding as makes their sides multiples of `divisor`, whatever padding they came in."""
    sides = [-(-max(side) // divisor) * divisor for side in zip(*batch.sizes, strict=True)]
    height, width = batch.images.shape[2:]
    edges = (0, sides[1] - width, 0, sides[0] - height)

    def moved(target: Targets) -> Targets:
        masks = None if target.masks is None else F.pad(target.masks, edges)
        stuff = None if target.stuff is None else F.pad(target.stuff, edges, value=VOID)
        return replace(target, masks=masks, stuff=stuff)

    targets = None if batch.targets is None else tuple(moved(target) for target in batch.targets)
    return replace(batch, images=F.pad(batch.images, edges), targets=targets)
