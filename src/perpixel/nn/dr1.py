"""DR1Basis (thesis 004, 5.4.2): the pyramid merged from its coarsest level to its finest by dynamic rank-1 convolutions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.ops.dr1 import Enlarging, doubled, dr1_conv, enlarged_to

TOGETHER = 4
"""Channels that are normalised together. Not over the batch: P7 of a small image is one cell, in a batch of one no spread."""

Factors = tuple[Float[Tensor, "b d _ _"] | None, Float[Tensor, "b d _ _"] | None]
"""A and B of a level, each the size of the level's map; None where it is left out."""


class DR1Basis(nn.Module):
    """Basis features at half the stride of the finest level: eq. 5.6.

    A level is brought to few channels (3x3 convolution, GroupNorm, ReLU), the result of the coarser one is enlarged and
    added, and a DR1Conv merges both under the factors of the level.

    Args:
        channels: of the pyramid.
        levels: of the pyramid.
        width: channels of the result, D (32 for instances, 64 where stuff is told too: table 5.6).
        enlarging: between levels and after the last (table 5.5).
    """

    def __init__(self, channels: int, levels: int, width: int, enlarging: Enlarging):
        super().__init__()
        if width % TOGETHER:
            raise InputError(f"model.instance.width={width} does not divide into groups of {TOGETHER} channels")
        self.enlarging: Enlarging = enlarging
        self.reduce = nn.ModuleList(_reduction(channels, width) for _ in range(levels))
        self.merge = nn.ParameterList(nn.Parameter(torch.empty(width, width, 3, 3)) for _ in range(levels))
        for weight in self.merge:
            nn.init.kaiming_uniform_(weight, a=1)

    def forward(
        self, pyramid: tuple[Float[Tensor, "b c _ _"], ...], factors: tuple[Factors, ...]
    ) -> Float[Tensor, "b _ _ _"]:
        """The features from the levels and their factors, finest first."""
        steps = zip(pyramid, factors, self.reduce, self.merge, strict=True)
        total = None
        for level, (a, b), reduce, weight in reversed(list(steps)):
            merged = reduce(level)
            if total is not None:
                merged = merged + enlarged_to(total, merged, self.enlarging)
            total = dr1_conv(merged, weight, a, b)
        assert total is not None
        return doubled(total, self.enlarging)


def _reduction(channels: int, width: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.GroupNorm(width // TOGETHER, width), nn.ReLU(inplace=True))
