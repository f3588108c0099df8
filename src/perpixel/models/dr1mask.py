"""DR1Mask: what the box tower sees decides, place by place, how features are merged; a few numbers then tell each object's mask.

Chen, thesis 004, chapter 5, section 5.4.2. The top layer reads the box tower: densely it gives the factors A and B of each level
(eq. 5.5), under which `DR1Basis` merges the pyramid (eq. 5.6); at candidates only it gives an instance's numbers, by which the
features cut out by the box become a mask (eq. 5.7, 5.8).
"""

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.candidates import BestPositives, RandomPositives, detection_scores, positives
from perpixel.models.heads import InstanceHead, InstanceHeadConfig, Losses, Pyramid
from perpixel.models.mask_losses import centered_mask_loss, semantic_cross_entropy
from perpixel.models.mask_truth import drawn, masks_of_objects
from perpixel.nn.attention import AttentionConfig, Factored
from perpixel.nn.dr1 import DR1Basis, Factors
from perpixel.nn.layers import head_conv
from perpixel.nn.mask_branch import SemanticBranch
from perpixel.ops.blend import cut_bases
from perpixel.ops.dr1 import Enlarging
from perpixel.ops.sampling import conv_at, patches_at, portions
from perpixel.structures import Batch, BoxMasks, Candidates, DenseOutputs, Matches

AT_ONCE = 64
"""Candidates whose masks are predicted together, so that memory does not grow with their number."""


@dataclass(frozen=True)
class DR1Mask(InstanceHeadConfig):
    """Settings of DR1Mask; the defaults are the thesis's.

    Attributes:
        width: D, channels of the basis features (table 5.6).
        factors: the dynamic factors that are there: A before the convolution, B after it (table 5.1); "none" is a plain FPN.
        position: what the factors are read from (table 5.3). An instance's numbers are always read from the box tower.
        enlarging: between levels (table 5.5).
        attention: how an instance's numbers tell its mask (table 5.4).
        region: cells a side of the masks.
        semantic_weight: of the loss of the classes of P3's cells, in training only; 0: no such branch.
        semantic_width: channels of its two convolutions.
        policy: the positives that train the head.
        weight: of the mask loss.
    """

    width: int = 32
    factors: Literal["none", "a", "b", "ab"] = "ab"
    position: Literal["fpn", "class_tower", "box_tower"] = "box_tower"
    enlarging: Enlarging = "aligned"
    attention: AttentionConfig = field(default_factory=Factored)
    region: int = 56
    semantic_weight: float = 0.3
    semantic_width: int = 128
    policy: RandomPositives | BestPositives = field(default_factory=lambda: RandomPositives(limit=None))
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "region"):
            if getattr(self, name) < 1:
                raise InputError(f"model.instance.{name}={getattr(self, name)} is not at least 1")

    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> "DR1MaskHead":
        """The head for pyramid maps of `channels` and tower maps of `tower_channels` channels at `strides`."""
        return DR1MaskHead(self, channels, tower_channels, strides, classes)


class Maps(NamedTuple):
    """Image-level work: the basis features, what boxes are cut out of, the box towers, the box head's finest level."""

    features: Float[Tensor, "b d h w"]
    bases: Float[Tensor, "b k h w"]
    towers: tuple[Float[Tensor, "b t _ _"], ...]
    finest: Float[Tensor, "b p _ _"]


class DR1MaskHead(InstanceHead):
    """The top layer, in its dense part and its part at candidates, the basis module, and the way masks are told."""

    def __init__(
        self, config: DR1Mask, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int
    ) -> None:
        super().__init__()
        self.config = config
        self.finest = strides[0]
        self.stride = strides[0] // 2
        self.basis = DR1Basis(channels, len(strides), config.width, config.enlarging)
        self.attention = config.attention.build(config.width)
        self.top = head_conv(tower_channels, self.attention.numbers)
        # Factors begin at 1: training starts from a plain FPN, where nothing is shut.
        count = 0 if config.factors == "none" else len(config.factors)
        source = channels if config.position == "fpn" else tower_channels
        self.context = head_conv(source, count * config.width, bias=1.0) if count else None
        self.semantic = SemanticBranch(channels, config.semantic_width, classes + 1) if config.semantic_weight else None

    def forward(self, pyramid: Pyramid, outputs: DenseOutputs) -> Maps:
        """The basis features, once an image."""
        features = self.basis(pyramid, self.factors(pyramid, outputs))
        return Maps(features, self.attention.bases(features), outputs.towers, pyramid[0])

    def factors(self, pyramid: Pyramid, outputs: DenseOutputs) -> tuple[Factors, ...]:
        """C_l = [A_l, B_l] of each level: eq. 5.5."""
        if self.context is None:
            return ((None, None),) * len(pyramid)
        sources = {"fpn": pyramid, "class_tower": outputs.class_towers, "box_tower": outputs.towers}
        levels = []
        for source in sources[self.config.position]:
            parts = iter(self.context(source).split(self.config.width, dim=1))
            levels.append(tuple(next(parts) if name in self.config.factors else None for name in "ab"))
        return tuple(levels)

    def choose(self, outputs: DenseOutputs, matches: Matches, batch: Batch) -> Candidates:
        """Positives of the detector whose masks are known, by the policy."""
        found = positives(outputs, matches, batch.truth())
        found = found.rows(drawn(found, batch.truth()))
        return self.config.policy.choose(replace(found, scores=detection_scores(outputs, found).detach()))

    def embeddings(self, dense: Maps, candidates: Candidates) -> Float[Tensor, "n e"]:
        """E of eq. 5.5, at candidates only."""
        numbers = conv_at(patches_at(dense.towers, candidates), self.top.weight, self.top.bias)
        return numbers.to(candidates.boxes.dtype)

    def logits(self, dense: Maps, candidates: Candidates, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n s s"]:
        """The mask of each candidate over its box."""
        bases, boxes = dense.bases.to(embeddings.dtype), candidates.boxes
        return self.attention(cut_bases(bases, boxes, candidates.image, self.stride, self.config.region), embeddings)

    def loss(self, dense: Maps, candidates: Candidates, batch: Batch) -> Losses:
        """BlendMask's losses: of the masks, and of the classes of P3's cells."""
        return self.losses(dense, candidates, self.embeddings(dense, candidates), batch)

    def losses(self, dense: Maps, candidates: Candidates, embeddings: Float[Tensor, "n e"], batch: Batch) -> Losses:
        """The losses of candidates whose embeddings are there already."""
        truth = masks_of_objects(candidates, batch.truth(), self.config.region)
        logits = self.logits(dense, candidates, embeddings)
        losses = {"mask": self.config.weight * centered_mask_loss(logits, truth, candidates)}
        if self.semantic is not None:
            classes = semantic_cross_entropy(self.semantic(dense.finest), batch.truth(), self.finest)
            losses["semantic"] = self.config.semantic_weight * classes
        return losses

    def predict(self, dense: Maps, candidates: Candidates) -> BoxMasks:
        """Mask probabilities over each candidate's box."""
        parts = []
        for rows in portions(candidates, AT_ONCE):
            some = candidates.rows(rows)
            parts.append(self.logits(dense, some, self.embeddings(dense, some)).sigmoid())
        return BoxMasks(torch.cat(parts))
