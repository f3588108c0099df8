"""Dynamic filters: convolutions whose weights are data, different for each instance."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Layer = tuple[Float[Tensor, "n _ _"], Float[Tensor, "n _"]]


def filter_count(channels: Sequence[int]) -> int:
    """How many numbers such a network has: (10, 8, 8, 1) gives 80 + 64 + 8 weights and 8 + 8 + 1 biases, 169."""
    return sum(c * out + out for c, out in pairwise(channels))


def split_filters(parameters: Float[Tensor, "n p"], channels: Sequence[int]) -> list[Layer]:
    """Weights and biases of each layer: thesis 002, 5.2.2.

    Args:
        parameters: all weights, layer by layer, each output's inputs together; then all biases.
        channels: into the first layer, between layers, out of the last.
    """
    shapes = list(pairwise(channels))
    parts = parameters.split([c * out for c, out in shapes] + [out for _, out in shapes], dim=1)
    weights, biases = parts[: len(shapes)], parts[len(shapes) :]
    shaped = (weight.unflatten(1, (out, c)) for weight, (c, out) in zip(weights, shapes, strict=True))
    return list(zip(shaped, biases, strict=True))


def over_places(layer: Layer, scale: Float[Tensor, "n d"], offset: Float[Tensor, "n d"]) -> Layer:
    """A layer whose first d inputs are scale * place + offset, as one whose first d inputs are the place itself."""
    weight, bias = layer
    count = scale.shape[1]
    along, others = weight[:, :, :count], weight[:, :, count:]
    return torch.cat([along * scale[:, None], others], dim=2), bias + (along @ offset[:, :, None])[:, :, 0]


def apply_filters(maps: Float[Tensor, "n c h w"], layers: Sequence[Layer]) -> Float[Tensor, "n _ h w"]:
    """Each instance's network on its own map, ReLU between layers; a layer is one batched product for all instances."""
    height, width = maps.shape[2:]
    (weight, bias), *rest = layers
    x = torch.baddbmm(bias[:, :, None], weight, maps.flatten(2))
    for weight, bias in rest:
        # In place: these maps are what costs memory and time, not the products.
        x = torch.baddbmm(bias[:, :, None], weight, x.relu_())
    return x.unflatten(2, (height, width))


def maps_of_images(maps: Float[Tensor, "b c h w"], image: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
    """The map of each instance's image; of a single image nothing is copied."""
    return maps.expand(image.shape[0], -1, -1, -1) if maps.shape[0] == 1 else maps[image]


def dynamic_conv(maps: Float[Tensor, "n c h w"], weight: Float[Tensor, "n out c k k"]) -> Float[Tensor, "n out h w"]:
    """Each map convolved with its own weights, without bias, zero outside: one batched product (PointINS, eq. 6)."""
    height, width = maps.shape[2:]
    size = weight.shape[-1]
    patches = maps.flatten(2) if size == 1 else F.unfold(maps, size, padding=size // 2)
    return torch.bmm(weight.flatten(2), patches).unflatten(2, (height, width))
