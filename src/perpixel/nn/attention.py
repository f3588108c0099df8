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
from perpixel.ops.blend import blend, enlarge
from perpixel.ops.dr1 import factored_attention, project, weighted_sum


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


@dataclass(frozen=True)
class AttentionConfig(ABC):
    """Settings of a way to tell masks."""

    @abstractmethod
    def build(self, width: int) -> Attention:
        """The module on features of `width` channels."""


@dataclass(frozen=True)
class Vector(AttentionConfig):
    """A weight a channel, as in YOLACT: D numbers. Panoptic segmentation needs this one (table 5.7)."""

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


class FullAttention(Attention):
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

    def forward(self, regions: Float[Tensor, "n _ s s"], numbers: Float[Tensor, "n _"]) -> Float[Tensor, "n s s"]:
        """Mask logits."""
        attention = numbers.unflatten(1, (self.config.bases, self.config.cells, self.config.cells))
        return blend(regions, enlarge(attention, regions.shape[-1]))


class FactoredAttention(Attention):
    """Eq. 5.7 and 5.8: K bases of each instance, attentions as sums of R outer products that all instances share."""

    def __init__(self, config: Factored, width: int):
        super().__init__()
        self.config = config
        self.split = (config.bases * width, config.bases * config.rank)
        self.numbers = sum(self.split)
        self.u = nn.Parameter(torch.randn(config.bases, config.rank, config.cells))
        self.v = nn.Parameter(torch.randn(config.bases, config.rank, config.cells))

    def forward(self, regions: Float[Tensor, "n _ s s"], numbers: Float[Tensor, "n _"]) -> Float[Tensor, "n s s"]:
        """Mask logits."""
        projection, diagonals = numbers.split(self.split, dim=1)
        bases = project(regions, projection.unflatten(1, (self.config.bases, -1)))
        diagonals = diagonals.unflatten(1, (self.config.bases, self.config.rank))
        attention = enlarge(factored_attention(diagonals, self.u, self.v), regions.shape[-1])
        return blend(bases, attention) if self.config.weighing == "softmax" else (attention * bases).sum(dim=1)
