"""BiFPN: a pyramid whose levels are mixed down and up again several times, by sums with learned weights.

Tan, Pang and Le 2020, as thesis 002 (3.3.3) takes it: the cell of their D3 model, 6 times, 160 channels, dense 3x3
convolutions in place of depth-wise separable ones.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.nn.fpn import Maps, Neck, NeckConfig

Norm = Literal["batch", "group"]
EPSILON = 1e-4
"""Keeps the weights of a sum finite where all are 0."""


@dataclass(frozen=True)
class BiFPN(NeckConfig):
    """Settings of a BiFPN; the defaults are the thesis's (3.3.3), as AdelaiDet runs them.

    Attributes:
        channels: of every pyramid map.
        repeats: cells, one after the other.
        top_levels: levels above the backbone's coarsest: 2 adds P6 and P7.
        norm: after every convolution: BatchNorm (over all processes with training.sync_batch_norm=true), or GroupNorm of 32
            groups for batches of a few images.
    """

    channels: int = 160
    repeats: int = 6
    top_levels: int = 2
    norm: Norm = "batch"

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> "BidirectionalPyramid":
        """The network over maps of `channels` at `strides`."""
        if self.norm == "group" and self.channels % 32:
            raise InputError(
                f"model.neck.channels={self.channels} does not divide into GroupNorm's 32 groups: use a multiple of 32"
            )
        if self.repeats < 1:
            raise InputError(f"model.neck.repeats={self.repeats} leaves no pyramid: it needs at least one cell")
        if len(channels) + self.top_levels < 2:
            raise InputError(f"model.neck.top_levels={self.top_levels} leaves one level: a BiFPN mixes two at least")
        return BidirectionalPyramid(self, channels, strides)

    def pyramid_strides(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        """The backbone's, then doubled for every top level."""
        return (*strides, *(strides[-1] * 2 ** (i + 1) for i in range(self.top_levels)))


class BidirectionalPyramid(Neck):
    """1x1 laterals, top levels by max pooling, then the cells."""

    def __init__(self, config: BiFPN, channels: tuple[int, ...], strides: tuple[int, ...]):
        super().__init__()
        width, norm = config.channels, config.norm
        self.channels = width
        self.strides = config.pyramid_strides(strides)
        self.top_levels = config.top_levels
        self.lateral = nn.ModuleList(_conv_norm(c, width, 1, norm, bias=True) for c in channels)
        self.reduction = _conv_norm(channels[-1], width, 1, norm) if config.top_levels else None
        self.cells = nn.ModuleList(Cell(len(self.strides), width, norm) for _ in range(config.repeats))

    def forward(self, maps: Maps) -> Maps:
        """P3, P4, ... from the backbone's maps, finest first."""
        pyramid = self.inputs(maps)
        for cell in self.cells:
            pyramid = cell(pyramid)
        return pyramid

    def inputs(self, maps: Maps) -> Maps:
        """What the first cell mixes: the backbone's maps in the pyramid's channels, and the top levels."""
        pyramid = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        if self.reduction is not None:
            x = self.reduction(maps[-1])
            for _ in range(self.top_levels):
                x = _halved(x)
                pyramid.append(x)
        return tuple(pyramid)


class Cell(nn.Module):
    """Once from the coarsest level to the finest and back; the way back reads the cell's inputs as well.

    Args:
        levels: of the pyramid.
        channels: of each.
        norm: after the convolutions.
    """

    def __init__(self, levels: int, channels: int, norm: Norm):
        super().__init__()
        # Levels 0 .. n-2, and 1 .. n-1; the coarsest has no way down of its own to read.
        self.down = nn.ModuleList(Fusion(2, channels, norm) for _ in range(levels - 1))
        self.up = nn.ModuleList(Fusion(3 if i < levels - 1 else 2, channels, norm) for i in range(1, levels))

    def forward(self, maps: Maps) -> Maps:
        """The mixed pyramid, of the same shapes."""
        passing = list(maps)
        for level in range(len(maps) - 2, -1, -1):
            coarser = F.interpolate(passing[level + 1], size=maps[level].shape[-2:], mode="nearest")
            passing[level] = self.down[level](maps[level], coarser)
        out = [passing[0]]
        for level in range(1, len(maps)):
            finer = _halved(out[-1])
            between = passing[level : level + 1] if level < len(maps) - 1 else []
            out.append(self.up[level - 1](maps[level], *between, finer))
        return tuple(out)


class Fusion(nn.Module):
    """A sum with learned weights that are never negative and add up to 1, swish, a 3x3 convolution, a norm.

    Args:
        inputs: maps in the sum.
        channels: in and out.
        norm: after the convolution.
    """

    def __init__(self, inputs: int, channels: int, norm: Norm):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.output = _conv_norm(channels, channels, 3, norm)

    def forward(self, *maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """One map from several of its shape."""
        weights = self.weights.relu()
        weights = weights / (weights.sum() + EPSILON)
        total = weights[0] * maps[0]
        for weight, x in zip(weights[1:], maps[1:], strict=True):
            total = total + weight * x
        return self.output(F.silu(total))


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1)


def _conv_norm(channels: int, out: int, size: int, norm: Norm, bias: bool = False) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, size, padding=size // 2, bias=bias)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(32, out))
