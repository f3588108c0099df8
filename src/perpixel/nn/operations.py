"""The operations that searched segmentation networks are made of: each keeps the channels and the size of its input."""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.nn.deform import DeformConv2d

Operation = Literal[
    "conv1",
    "conv3",
    "sep3",
    "sep5",
    "pool",
    "conv3_rate3",
    "conv3_rate12",
    "sep3_rate3",
    "sep5_rate6",
    "skip",
    "none",
    "deform3",
]
"""A convolution of side 1, 3 or 5 (sep: two separable ones; deform: at learned offsets) at a dilation rate; pool: the mean of the
whole map, then a 1x1 convolution; skip: the input; none: zeros."""

DECODER_OPERATIONS: tuple[Operation, ...] = get_args(Operation)[:11]
"""What static decoders choose from (Nekrasov et al., CVPR 2019); places are the numbers of its notation."""

CELL_OPERATIONS: tuple[Operation, ...] = ("sep3", "pool", "sep3_rate3", "sep5_rate6", "skip", "deform3")
"""What dynamic cells choose from (thesis 004, table 6.1); places are the table's numbers."""


Norm = Callable[[int], nn.Module]
"""Makes the norm over so many channels."""


def build_operation(name: Operation, channels: int, norm: Norm = nn.BatchNorm2d) -> nn.Module:
    """The operation on maps of `channels`; convolutions are followed by the norm and ReLU."""
    match name:
        case "conv1":
            return conv_unit(channels, channels, 1, norm=norm)
        case "conv3":
            return conv_unit(channels, channels, 3, norm=norm)
        case "conv3_rate3":
            return conv_unit(channels, channels, 3, rate=3, norm=norm)
        case "conv3_rate12":
            return conv_unit(channels, channels, 3, rate=12, norm=norm)
        case "sep3":
            return _separable(channels, 3, norm=norm)
        case "sep5":
            return _separable(channels, 5, norm=norm)
        case "sep3_rate3":
            return _separable(channels, 3, rate=3, norm=norm)
        case "sep5_rate6":
            return _separable(channels, 5, rate=6, norm=norm)
        case "pool":
            return GlobalPool(channels, norm)
        case "deform3":
            conv = DeformConv2d(channels, channels, bias=False, modulated=False)
            return nn.Sequential(conv, norm(channels), nn.ReLU())
        case "skip":
            return nn.Identity()
        case "none":
            return Zeros()


def conv_unit(
    channels: int, out: int, side: int, rate: int = 1, activation: bool = True, norm: Norm = nn.BatchNorm2d
) -> nn.Sequential:
    """A convolution that keeps the map's size, a norm and, unless told otherwise, ReLU."""
    conv = nn.Conv2d(channels, out, side, padding=rate * (side // 2), dilation=rate, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, norm(out), *((nn.ReLU(),) if activation else ()))


def _separable(channels: int, side: int, rate: int = 1, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """Twice: a depthwise convolution, a pointwise one, a norm, ReLU."""
    conv = partial(nn.Conv2d, channels, channels, bias=False)
    layers: list[nn.Module] = []
    for _ in range(2):
        depthwise = conv(side, padding=rate * (side // 2), dilation=rate, groups=channels)
        layers += [depthwise, conv(1), norm(channels), nn.ReLU()]
    return nn.Sequential(*layers)


class GlobalPool(nn.Module):
    """The mean of the map at every pixel, then a 1x1 convolution with a norm and ReLU (table 6.1, ID 1)."""

    def __init__(self, channels: int, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = norm(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The convolution runs once an image: on a constant map it is constant."""
        mean = self.conv(x.mean(dim=(2, 3), keepdim=True))
        # Batch norm sees the whole map, so that it has a variance for a batch of one image too.
        return torch.relu(self.norm(mean.expand(-1, -1, *x.shape[2:])))


class Zeros(nn.Module):
    """Nothing: zeros of the input's shape, through which gradients of zero flow."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Zeros."""
        return x * 0
