"""BlendMask: a few maps of the image, and for each object a coarse map over its box that says where to take which of them.

Chen, thesis 004, chapter 4. The whole method in `logits`: the bases are cut out by the box (eq. 4.1), the attentions of the
candidate are enlarged to the same size (eq. 4.2), and the softmax of the attentions weighs the bases (eq. 4.3, 4.4). Attentions
are computed at candidates only: the map of K M^2 (784) channels never exists.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.candidates import BestPositives, RandomPositives, detection_scores, positives
from perpixel.models.heads import InstanceHead, InstanceHeadConfig, Losses, Pyramid
from perpixel.models.mask_losses import centered_mask_loss, semantic_cross_entropy
from perpixel.models.mask_truth import drawn, masks_of_objects
from perpixel.nn.bases import Bottom, BottomConfig, ProtoFPN
from perpixel.nn.layers import head_conv
from perpixel.nn.mask_branch import SemanticBranch
from perpixel.ops.blend import Sampling, assemble, blend, blend_one, cut_bases, enlarge
from perpixel.ops.sampling import conv_at, patches_at, portions
from perpixel.structures import Batch, BoxMasks, Candidates, DenseOutputs, Matches

AT_ONCE = 128
"""Candidates whose masks are predicted together, so that memory does not grow with their number."""


@dataclass(frozen=True)
class BlendMask(InstanceHeadConfig):
    """Settings of BlendMask; the defaults are those of the released models.

    Attributes:
        bottom: the module that makes the bases (tables 4.4 and 4.7).
        bases: K, how many (table 4.3). 1 has sigmoids in place of the softmax.
        region: R, cells a side of the cut bases and of the masks (table 4.2).
        attention: M, cells a side of the attentions (table 4.2); 1 gives each basis one weight, as YOLACT does (table 4.1).
        cutting: sampling of the bases (table 4.6).
        enlarging: interpolation of the attentions (table 4.5).
        merging: by attentions, or fixed: cell (i, j) of M x M takes basis i M + j, as FCIS does (table 4.1, "Assembler").
        semantic_weight: of the loss of the classes of P3's cells, in training only (table 4.7, "+semantic"); 0: no such branch.
        semantic_width: channels of its two convolutions.
        policy: the positives that train the head.
        weight: of the mask loss.
    """

    bottom: BottomConfig = field(default_factory=ProtoFPN)
    bases: int = 4
    region: int = 56
    attention: int = 14
    cutting: Sampling = "bilinear"
    enlarging: Sampling = "bilinear"
    merging: Literal["attention", "fixed"] = "attention"
    semantic_weight: float = 0.3
    semantic_width: int = 128
    policy: RandomPositives | BestPositives = field(default_factory=lambda: RandomPositives(limit=None))
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("bases", "region", "attention"):
            if getattr(self, name) < 1:
                raise InputError(f"model.instance.{name}={getattr(self, name)} is not at least 1")
        if self.merging == "fixed" and self.bases != self.attention**2:
            raise InputError(
                f"model.instance.merging=fixed takes a basis for each cell: model.instance.bases={self.bases} is not "
                f"the square of model.instance.attention={self.attention}"
            )

    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> "BlendMaskHead":
        """The head on the levels of the box head alone."""
        return self._build({}, dict.fromkeys(strides, channels), tower_channels, strides, classes)

    def build_among(
        self, backbone: Mapping[int, int], pyramid: Mapping[int, int], strides: tuple[int, ...], classes: int
    ) -> "BlendMaskHead":
        """The head where C3 and C5, or P2, may be read too."""
        return self._build(backbone, pyramid, pyramid[strides[0]], strides, classes)

    def _build(
        self,
        backbone: Mapping[int, int],
        pyramid: Mapping[int, int],
        tower_channels: int,
        strides: tuple[int, ...],
        classes: int,
    ) -> "BlendMaskHead":
        bottom = self.bottom.build(backbone, pyramid, self.bases)
        finest = strides[0]
        semantic = SemanticBranch(pyramid[finest], self.semantic_width, classes + 1) if self.semantic_weight else None
        return BlendMaskHead(self, bottom, semantic, tower_channels, tuple(backbone), tuple(pyramid), finest)


class Maps(NamedTuple):
    """Image-level work: the bases, the towers that attentions are read from, the box head's finest level."""

    bases: Float[Tensor, "b k h w"]
    towers: tuple[Float[Tensor, "b t _ _"], ...]
    finest: Float[Tensor, "b p _ _"]


class BlendMaskHead(InstanceHead):
    """The bottom module, and the top layer that predicts attentions.

    Args:
        config: of the head.
        bottom: makes the bases.
        semantic: the branch of the auxiliary loss.
        tower_channels: of the box tower.
        backbone, pyramid: strides of the backbone's maps and of all of the pyramid's.
        finest: stride of the box head's finest level.
    """

    def __init__(
        self,
        config: BlendMask,
        bottom: Bottom,
        semantic: SemanticBranch | None,
        tower_channels: int,
        backbone: tuple[int, ...],
        pyramid: tuple[int, ...],
        finest: int,
    ):
        super().__init__()
        self.config = config
        self.bottom = bottom
        self.semantic = semantic
        self.backbone_strides, self.pyramid_strides, self.finest = backbone, pyramid, finest
        count = config.bases * config.attention**2
        self.top = head_conv(tower_channels, count) if config.merging == "attention" else None

    def forward(self, pyramid: Pyramid, outputs: DenseOutputs) -> Maps:
        """The bases, once an image."""
        backbone = dict(zip(self.backbone_strides, outputs.backbone, strict=True))
        levels = dict(zip(self.pyramid_strides, (*outputs.finer, *pyramid), strict=True))
        return Maps(self.bottom(backbone, levels), outputs.towers, pyramid[0])

    def choose(self, outputs: DenseOutputs, matches: Matches, batch: Batch) -> Candidates:
        """Positives of the detector whose masks are known, by the policy."""
        found = positives(outputs, matches, batch.truth())
        found = found.rows(drawn(found, batch.truth()))
        return self.config.policy.choose(replace(found, scores=detection_scores(outputs, found).detach()))

    def logits(self, dense: Maps, candidates: Candidates) -> Float[Tensor, "n s s"]:
        """Equations 4.1 to 4.4: the mask of each candidate over its box."""
        config, boxes = self.config, candidates.boxes
        bases = dense.bases.to(boxes.dtype)
        regions = cut_bases(bases, boxes, candidates.image, self.bottom.stride, config.region, config.cutting)
        if self.top is None:
            return assemble(regions, config.attention)
        attention = enlarge(self.attentions(dense, candidates), config.region, config.enlarging)
        return blend_one(regions, attention) if config.bases == 1 else blend(regions, attention)

    def attentions(self, dense: Maps, candidates: Candidates) -> Float[Tensor, "n k m m"]:
        """The top layer at candidates only, basis by basis, each from the upper left cell on."""
        assert self.top is not None
        numbers = conv_at(patches_at(dense.towers, candidates), self.top.weight, self.top.bias)
        side = self.config.attention
        return numbers.to(candidates.boxes.dtype).unflatten(1, (self.config.bases, side, side))

    def loss(self, dense: Maps, candidates: Candidates, batch: Batch) -> Losses:
        """Cross entropy of the masks, its mean over cells weighted by each candidate's centre-ness; and that of the classes."""
        logits = self.logits(dense, candidates)
        losses = {"mask": self.config.weight * centered_mask_loss(logits, self.truth(candidates, batch), candidates)}
        if self.semantic is not None:
            classes = semantic_cross_entropy(self.semantic(dense.finest), batch.truth(), self.finest)
            losses["semantic"] = self.config.semantic_weight * classes
        return losses

    def truth(self, candidates: Candidates, batch: Batch) -> Bool[Tensor, "n s s"]:
        """What the masks should be: those of the objects over their boxes."""
        return masks_of_objects(candidates, batch.truth(), self.config.region)

    def predict(self, dense: Maps, candidates: Candidates) -> BoxMasks:
        """Mask probabilities over each candidate's box."""
        parts = [self.logits(dense, candidates.rows(rows)).sigmoid() for rows in portions(candidates, AT_ONCE)]
        return BoxMasks(torch.cat(parts))
