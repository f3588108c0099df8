"""Bilinear interpolation is separable: along one axis, a map enlarged and then brought to the photo's size is a matrix."""

import torch
from jaxtyping import Float
from torch import Tensor


def between(at: Float[Tensor, " n"], cells: int) -> Float[Tensor, "n cells"]:
    """Weight of each cell at places given in cells, cell i at place i; before the first and past the last, theirs alone."""
    distance = at.clamp(min=0, max=cells - 1)[:, None] - torch.arange(cells, device=at.device)
    return (1 - distance.abs()).clamp(min=0)


def at_pixels_of_photo(weights: Float[Tensor, "inside cells"], pixels: int) -> Float[Tensor, "pixels cells"]:
    """What each pixel of the photo takes of the cells, from what the input's pixels inside the padding take.

    The input is resized as PyTorch's bilinear interpolation does it with corners not aligned.
    """
    inside = len(weights)
    at = ((torch.arange(pixels, device=weights.device) + 0.5) * (inside / pixels) - 0.5).clamp(min=0)
    below = at.long().clamp(max=inside - 1)
    part = (at - below)[:, None]
    return (1 - part) * weights[below] + part * weights[(below + 1).clamp(max=inside - 1)]
