"""Pairs of neighbouring pixels: whether their colours are alike, and whether a mask gives both the same label.

An edge joins two pixels. Every edge is looked at once, from the pixel that comes first: half of the neighbourhood is enough.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def half_neighbourhood(size: int, dilation: int) -> list[tuple[int, int]]:
    """(down, right) from a pixel to each of the neighbours that come after it, in a `size` x `size` patch around it."""
    reach = range(-(size // 2), size // 2 + 1)
    return [(y * dilation, x * dilation) for y in reach for x in reach if (y, x) > (0, 0)]


def ends(maps: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The values at the first and at the second pixel of every edge of this offset.

    Args:
        maps: (..., h, w).
        offset: (down, right), down not negative.

    Returns:
        Two views (..., h - down, w - |right|).
    """
    down, right = offset
    height, width = maps.shape[-2:]
    first = maps[..., : max(0, height - down), max(0, -right) : max(0, width - max(0, right))]
    second = maps[..., down:, max(0, right) : max(0, width + min(0, right))]
    return first, second


def color_similarity(
    first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], theta: float
) -> Float[Tensor, "b h w"]:
    """exp(-distance / theta) of colours in LAB: thesis 002, eq. 6.7."""
    return torch.exp(-(first - second).norm(dim=1) / theta)


def log_same(first: Float[Tensor, "n h w"], second: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """log of the probability that two pixels have the same label, from their logits: thesis 002, eq. 6.4.

    p q + (1 - p)(1 - q), kept in logarithms. That of different labels is ``log_same(first, -second)``.
    """
    both = F.logsigmoid(first) + F.logsigmoid(second)
    neither = F.logsigmoid(-first) + F.logsigmoid(-second)
    return torch.logaddexp(both, neither)
