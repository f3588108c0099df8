"""How an instance's numbers and the image's features, cut out by its box, become a mask (thesis 004, 5.4.2, table 5.4).

Three ways: a weight a channel (YOLACT), a coarse map over the box a basis (BlendMask), and the same map from few numbers.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.ops.blend import blend, enlarge, laid_over
from perpixel.ops.dr1 import factored_attention, project, weighted_sum

PORTION = 16
"""Instances whose attentions are laid on the image at a time, so that nothing but their logits grows with their number."""


class Attention(nn.Module, ABC):
    """Tells a mask from features.

    Attributes:
        numbers: how many an instance has.
    """

    numbers: int

    def bases(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b _ h w"]:
        """What is cut out by boxes: image-level work, once an image."""
        return features

    @abstractmethod
    def forward(self, regions: Float[Tensor, "n _ s s"], numbers: Float[Tensor, "n _"]) -> Float[Tensor, "n s s"]:
        """Mask logits over each box, from the bases cut out by it and the instance's numbers."""

    @abstractmethod
    def over_image(
        self, features: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"], numbers: Float[Tensor, "n _"], stride: int
    ) -> Float[Tensor, "n h w"]:
        """Logits of each instance at every step of its image: W_thing of the unified layer (5.4.3, eq. 5.9).

        Args:
            features: of one image, `stride` pixels a step.
            boxes: xyxy, pixels.
            numbers: of the instances.
            stride: see there.
        """


@dataclass(frozen=True)
class AttentionConfig(ABC):
    """Settings of a way to tell masks."""

    @abstractmethod
    def build(self, width: int) -> Attention:
        """The module on features of `width` channels."""


@dataclass(frozen=True)
class Vector(AttentionConfig):
    """A weight a channel, as in YOLACT: D numbers. The best for panoptic segmentation (table 5.7)."""

    def build(self, width: int) -> "VectorAttention":
        """The module."""
        return VectorAttention(width)


@dataclass(frozen=True)
class Full(AttentionConfig):
    """BlendMask's attentions: K M^2 numbers.

    Attributes:
        bases: K. D channels would be too many (D M^2 numbers): a 1x1 convolution, the same for all instances, makes K of them.
        cells: M.
    """

    bases: int = 4
    cells: int = 14

    def __post_init__(self) -> None:
        _at_least_one(self, "bases", "cells")

    def build(self, width: int) -> "FullAttention":
        """The module."""
        return FullAttention(self, width)


@dataclass(frozen=True)
class Factored(AttentionConfig):
    """A projection of each instance's own, and attentions whose factors all instances share: D K + K R numbers.

    Attributes:
        bases: K.
        cells: M.
        rank: R, numbers an instance has of each attention.
        weighing: the softmax over K weighs the bases, as in BlendMask, or the attentions do as they are. The chapter does not
            say; it merges the two "similar to BlendMask", and weights that sum to 1 leave the mask's scale to the projection.
    """

    bases: int = 4
    cells: int = 14
    rank: int = 4
    weighing: Literal["softmax", "plain"] = "softmax"

    def __post_init__(self) -> None:
        _at_least_one(self, "bases", "cells", "rank")

    def build(self, width: int) -> "FactoredAttention":
        """The module."""
        return FactoredAttention(self, width)


def _at_least_one(config: AttentionConfig, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise InputError(f"model.instance.attention.{name}={getattr(config, name)} is not at least 1")


class VectorAttention(Attention):
    """The channels weighted by the instance's numbers, summed."""

    def __init__(self, width: int):
        super().__init__()
        self.numbers = width

    def forward(self, regions: Float[Tensor, "n _ s s"], numbers: Float[Tensor, "n _"]) -> Float[Tensor, "n s s"]:
        """Mask logits."""
        return weighted_sum(regions, numbers)

    def over_image(
        self, features: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"], numbers: Float[Tensor, "n _"], stride: int
    ) -> Float[Tensor, "n h w"]:
        """One matrix product; boxes say nothing."""
        return torch.einsum("nd,dhw->nhw", numbers, features)


class BoxAttention(Attention):
    """Bases weighted by attentions that lie over the instance's box."""

    @abstractmethod
    def parts(
        self, bases: Float[Tensor, "#n _ h w"], numbers: Float[Tensor, "n _"]
    ) -> tuple[Float[Tensor, "#n k h w"], Float[Tensor, "n k m m"]]:
        """K bases and K attentions of each instance.

        Args:
            bases: what `bases` gives, cut out by each box or of the whole image.
            numbers: of the instances.
        """

    def merged(self, bases: Float[Tensor, "#n k h w"], attention: Float[Tensor, "n k h w"]) -> Float[Tensor, "n h w"]:
        """Logits, the attentions being as large as the bases."""
        return blend(bases, attention)

    def forward(self, regions: Float[Tensor, "n _ s s"], numbers: Float[Tensor, "n _"]) -> Float[Tensor, "n s s"]:
        """Mask logits."""
        bases, attention = self.parts(regions, numbers)
        return self.merged(bases, enlarge(attention, regions.shape[-1]))

    def over_image(
        self, features: Float[Tensor, "d h w"], boxes: Float[Tensor, "n 4"], numbers: Float[Tensor, "n _"], stride: int
    ) -> Float[Tensor, "n h w"]:
        """The attentions are laid on the image by the boxes."""
        whole, logits = self.bases(features[None]), []
        for at, some in zip(boxes.split(PORTION), numbers.split(PORTION), strict=True):
            bases, attention = self.parts(whole, some)
            logits.append(self.merged(bases, laid_over(bases, attention, at, stride)))
        return torch.cat(logits)


class FullAttention(BoxAttention):
    """Few bases of the image, blended as in BlendMask (eq. 4.2 to 4.4)."""

    def __init__(self, config: Full, width: int):
        super().__init__()
        self.config = config
        self.numbers = config.bases * config.cells**2
        self.projection = nn.Conv2d(width, config.bases, 1)
        nn.init.kaiming_uniform_(self.projection.weight, a=1)
        nn.init.zeros_(self.projection.bias)  # pyright: ignore[reportArgumentType]

    def bases(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b _ h w"]:
        """K bases of the image."""
        return self.projection(features)

    def parts(
        self, bases: Float[Tensor, "#n k h w"], numbers: Float[Tensor, "n _"]
    ) -> tuple[Float[Tensor, "#n k h w"], Float[Tensor, "n k m m"]]:
        """The image's bases, and attentions as the numbers are."""
        return bases, numbers.unflatten(1, (self.config.bases, self.config.cells, self.config.cells))


class FactoredAttention(BoxAttention):
    """Eq. 5.7 and 5.8: K bases of each instance, attentions as sums of R outer products that all instances share."""

    def __init__(self, config: Factored, width: int):
        super().__init__()
        self.config = config
        self.split = (config.bases * width, config.bases * config.rank)
        self.numbers = sum(self.split)
        self.u = nn.Parameter(torch.randn(config.bases, config.rank, config.cells))
        self.v = nn.Parameter(torch.randn(config.bases, config.rank, config.cells))

    def parts(
        self, bases: Float[Tensor, "#n d h w"], numbers: Float[Tensor, "n _"]
    ) -> tuple[Float[Tensor, "n k h w"], Float[Tensor, "n k m m"]]:
        """Bases by the instance's own projection (eq. 5.7), attentions from its diagonals (eq. 5.8)."""
        projection, diagonals = numbers.split(self.split, dim=1)
        own = project(bases, projection.unflatten(1, (self.config.bases, -1)))
        return own, factored_attention(diagonals.unflatten(1, (self.config.bases, self.config.rank)), self.u, self.v)

    def merged(self, bases: Float[Tensor, "n k h w"], attention: Float[Tensor, "n k h w"]) -> Float[Tensor, "n h w"]:
        """Logits, by the weighing."""
        return blend(bases, attention) if self.config.weighing == "softmax" else (attention * bases).sum(dim=1)
