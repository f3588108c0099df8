"""Feature pyramids: from a backbone's maps to maps of one width at all strides."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Maps = tuple[Float[Tensor, "b _ _ _"], ...]


class Neck(nn.Module, ABC):
    """Turns backbone maps into pyramid maps."""

    channels: int
    strides: tuple[int, ...]

    @abstractmethod
    def forward(self, maps: Maps) -> Maps:
        """Pyramid maps, finest first."""


@dataclass(frozen=True)
class NeckConfig(ABC):
    """Settings of a neck."""

    @abstractmethod
    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> Neck:
        """The neck over maps of `channels` at `strides`, finest first."""

    @abstractmethod
    def pyramid_strides(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        """Strides of the pyramid over backbone maps at `strides`."""


@dataclass(frozen=True)
class FPN(NeckConfig):
    """Feature pyramid network (Lin et al. 2017) with the extra levels of one-stage detectors.

    Attributes:
        channels: of every pyramid map.
        top_levels: levels above the backbone's coarsest, each a 3x3 convolution of stride 2: 2 adds P6 and P7.
        top_from: what P6 reads: the pyramid's own coarsest map (P5, FCOS) or the backbone's (C5, RetinaNet); thesis 002,
            3.2.2 and table 3.5.
        top_relu: ReLU between the extra levels; mmdetection's RetinaNet has none.
    """

    channels: int = 256
    top_levels: int = 2
    top_from: Literal["p5", "c5"] = "p5"
    top_relu: bool = True

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> "PyramidNetwork":
        """The network over maps of `channels` at `strides`."""
        return PyramidNetwork(self, channels, strides)

    def pyramid_strides(self, strides: tuple[int, ...]) -> tuple[int, ...]:
        """The backbone's, then doubled for every top level."""
        return (*strides, *(strides[-1] * 2 ** (i + 1) for i in range(self.top_levels)))


class PyramidNetwork(Neck):
    """1x1 laterals, nearest top-down sums, 3x3 outputs, strided convolutions on top."""

    def __init__(self, config: FPN, channels: tuple[int, ...], strides: tuple[int, ...]):
        super().__init__()
        width = config.channels
        self.top_from = config.top_from
        self.top_relu = config.top_relu
        self.channels = width
        self.strides = config.pyramid_strides(strides)
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        first = width if config.top_from == "p5" else channels[-1]
        self.top = nn.ModuleList(
            nn.Conv2d(first if i == 0 else width, width, 3, stride=2, padding=1) for i in range(config.top_levels)
        )
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_uniform_(conv.weight, a=1)
                nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, maps: Maps) -> Maps:
        """P3, P4, ... from the backbone's maps, finest first."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(merged) - 2, -1, -1):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
        pyramid = [output(x) for output, x in zip(self.output, merged, strict=True)]
        x = pyramid[-1] if self.top_from == "p5" else maps[-1]
        for i, conv in enumerate(self.top):
            x = conv(F.relu(x) if i > 0 and self.top_relu else x)
            pyramid.append(x)
        return tuple(pyramid)
