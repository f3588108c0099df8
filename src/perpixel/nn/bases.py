"""Bottom modules: image-level maps ("bases") that all instances of an image are assembled from (thesis 004, 4.3.1 and 4.4.1).

Three of them, told apart by what they read: the decoder of DeepLabV3+, YOLACT's ProtoNet on P3, and ProtoNet on the sum of P3, P4
and P5, which the released models have.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.nn.mask_branch import conv_norm

Widths = Mapping[int, int]
"""Channels of maps by their strides."""
Maps = Mapping[int, Float[Tensor, "b _ _ _"]]
"""Maps by their strides."""


class Bottom(nn.Module, ABC):
    """Makes bases.

    Attributes:
        stride: pixels of the input a step of the bases.
    """

    stride: int

    @abstractmethod
    def forward(self, backbone: Maps, pyramid: Maps) -> Float[Tensor, "b k h w"]:
        """The bases, from the backbone's maps or the pyramid's."""


@dataclass(frozen=True)
class BottomConfig(ABC):
    """Settings of a bottom module."""

    @abstractmethod
    def build(self, backbone: Widths, pyramid: Widths, bases: int) -> Bottom:
        """The module that makes so many bases from maps of these widths.

        Raises:
            InputError: there is no map of a stride that it reads.
        """


@dataclass(frozen=True)
class DeepLabV3Plus(BottomConfig):
    """The decoder of DeepLabV3+ (Chen et al. 2018); the thesis's choice.

    Attributes:
        reads: the pyramid's maps (P3 and P5) or the backbone's (C3 and C5; table 4.4).
        fine, coarse: strides of the two maps; bases have the stride of the first (4: table 4.7, "+s/4", which needs
            model.backbone.stages=[4,8,16,32] and model.box_stride=8).
        width: channels (128 or 256; table 4.7).
        fine_width: channels that the fine map is brought to before it is joined.
        rates: dilations of the pooling pyramid's convolutions.
    """

    reads: Literal["pyramid", "backbone"] = "pyramid"
    fine: int = 8
    coarse: int = 32
    width: int = 128
    fine_width: int = 48
    rates: tuple[int, ...] = (6, 12, 18)

    def build(self, backbone: Widths, pyramid: Widths, bases: int) -> "DeepLabDecoder":
        """The decoder."""
        maps = backbone if self.reads == "backbone" else pyramid
        return DeepLabDecoder(self, _width(maps, self.fine, self.reads), _width(maps, self.coarse, self.reads), bases)


@dataclass(frozen=True)
class ProtoNet(BottomConfig):
    """YOLACT's ProtoNet (Bolya et al. 2019) on one level of the pyramid ("Proto-P3" in table 4.7); bases have half its stride.

    Attributes:
        reads: stride of the level.
        width: channels.
        convs: convolutions before the map is enlarged; one more follows.
    """

    reads: int = 8
    width: int = 256
    convs: int = 3

    def build(self, backbone: Widths, pyramid: Widths, bases: int) -> "PrototypesOfLevel":
        """The network."""
        return PrototypesOfLevel(self, _width(pyramid, self.reads, "pyramid"), bases)


@dataclass(frozen=True)
class ProtoFPN(BottomConfig):
    """ProtoNet on the sum of several levels ("Proto-FPN" in table 4.7), as released; bases have half the finest one's stride.

    Attributes:
        reads: strides of the levels, finest first.
        width: channels that each level is brought to.
        convs: convolutions of the sum before it is enlarged; one more follows. Of the real-time models: 2.
    """

    reads: tuple[int, ...] = (8, 16, 32)
    width: int = 128
    convs: int = 3

    def build(self, backbone: Widths, pyramid: Widths, bases: int) -> "PrototypesOfPyramid":
        """The network."""
        return PrototypesOfPyramid(self, [_width(pyramid, stride, "pyramid") for stride in self.reads], bases)


def _width(maps: Widths, stride: int, reads: str) -> int:
    if stride not in maps:
        raise InputError(
            f"model.instance.bottom reads a map of stride {stride}, and the {reads} has strides {list(maps)}: "
            "change model.instance.bottom, or model.backbone.stages together with model.box_stride"
        )
    return maps[stride]


class DeepLabDecoder(Bottom):
    """Atrous spatial pyramid pooling of the coarse map, joined with the fine one."""

    def __init__(self, config: DeepLabV3Plus, fine: int, coarse: int, bases: int):
        super().__init__()
        self.config = config
        self.stride = config.fine
        width = config.width
        self.branches = nn.ModuleList(
            [
                conv_norm(coarse, width, 1),
                *(conv_norm(coarse, width, 3, dilation) for dilation in config.rates),
            ]
        )
        # No norm: one value a channel and image has no spread, in a batch of one image none at all.
        self.whole_image = nn.Conv2d(coarse, width, 1)
        self.joined = conv_norm(width * (2 + len(config.rates)), width, 1)
        self.fine = conv_norm(fine, config.fine_width, 1)
        self.tower = nn.Sequential(
            conv_norm(width + config.fine_width, width), conv_norm(width, width), _last(width, bases)
        )
        _start(self.whole_image)

    def forward(self, backbone: Maps, pyramid: Maps) -> Float[Tensor, "b k h w"]:
        """The bases at the stride of the fine map."""
        maps = backbone if self.config.reads == "backbone" else pyramid
        coarse, fine = maps[self.config.coarse], self.fine(maps[self.config.fine])
        whole = self.whole_image(coarse.mean(dim=(2, 3), keepdim=True)).relu().expand(-1, -1, *coarse.shape[2:])
        context = self.joined(torch.cat([*(branch(coarse) for branch in self.branches), whole], dim=1))
        return self.tower(torch.cat([_resized(context, fine), fine], dim=1))


class PrototypesOfLevel(Bottom):
    """Convolutions without norms, as YOLACT has them; enlarged by 2 before the last."""

    def __init__(self, config: ProtoNet, channels: int, bases: int):
        super().__init__()
        self.reads = config.reads
        self.stride = config.reads // 2
        width = config.width
        before = [_conv(channels if i == 0 else width, width) for i in range(config.convs)]
        self.tower = nn.Sequential(
            *before, _doubled(), _conv(width if before else channels, width), _last(width, bases)
        )

    def forward(self, backbone: Maps, pyramid: Maps) -> Float[Tensor, "b k h w"]:
        """The bases at half the stride of the level."""
        return self.tower(pyramid[self.reads])


class PrototypesOfPyramid(Bottom):
    """Levels brought to one width and to the size of the finest, summed; convolutions; enlarged by 2 before the last."""

    def __init__(self, config: ProtoFPN, channels: list[int], bases: int):
        super().__init__()
        self.reads = config.reads
        self.stride = config.reads[0] // 2
        width = config.width
        self.refine = nn.ModuleList(conv_norm(each, width) for each in channels)
        before = [conv_norm(width, width) for _ in range(config.convs)]
        self.tower = nn.Sequential(*before, _doubled(), conv_norm(width, width), _last(width, bases))

    def forward(self, backbone: Maps, pyramid: Maps) -> Float[Tensor, "b k h w"]:
        """The bases at half the stride of the finest level."""
        levels = [refine(pyramid[stride]) for refine, stride in zip(self.refine, self.reads, strict=True)]
        total = levels[0]
        for coarse in levels[1:]:
            total = total + _resized(coarse, total)
        return self.tower(total)


def _resized(x: Float[Tensor, "b c _ _"], to: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c h w"]:
    return F.interpolate(x, size=to.shape[2:], mode="bilinear", align_corners=False)


def _doubled() -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


def _conv(channels: int, out: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, 3, padding=1)
    _start(conv)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def _last(channels: int, bases: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, bases, 1)
    _start(conv)
    return conv


def _start(conv: nn.Conv2d) -> None:
    nn.init.kaiming_uniform_(conv.weight, a=1)
    nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
