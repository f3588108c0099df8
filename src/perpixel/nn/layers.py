"""Small layers that several methods share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.nn.deform import DeformConv2d

HeadNorm = Literal["group", "none"]
TowerNorm = Literal["group", "batch", "none"]
"""Of the box head's towers: batch norms need to know the level."""
Deformable = Literal[False, True, "v1"]
"""Whether a convolution samples at learned offsets, and in which version: True weights each sample (v2), "v1" does not."""


@dataclass(frozen=True)
class Pixels:
    """How pixels enter a network.

    Attributes:
        mean, std: of RGB in 0..255, whatever the order of the channels below.
        order: the order of the channels a backbone was trained with; data are RGB everywhere else.
    """

    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    order: Literal["rgb", "bgr"] = "rgb"

    def normalize(self, images: Num[Tensor, "b 3 h w"], sizes: tuple[tuple[int, int], ...]) -> Float[Tensor, "b 3 h w"]:
        """Standardised images in the network's channel order; the padding around each image stays zero."""
        out = self.standardize(images)
        for row, (height, width) in zip(out, sizes, strict=True):
            row[:, height:] = 0
            row[:, :, width:] = 0
        return out

    def standardize(self, images: Num[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pixels less the mean over the deviation, in the network's channel order."""
        shape = (1, 3, 1, 1)
        kind = torch.promote_types(images.dtype, torch.float32)
        mean = torch.tensor(self.mean, dtype=kind, device=images.device).reshape(shape)
        std = torch.tensor(self.std, dtype=kind, device=images.device).reshape(shape)
        out = images.float().sub_(mean) if images.dtype == torch.uint8 else images - mean
        out = out.div_(std)
        return out.flip(1) if self.order == "bgr" else out


class Tower(nn.Sequential):
    """3x3 convolutions with normalisation and ReLU: the trunk of a head, shared by all levels.

    Args:
        channels: in and out.
        depth: how many convolutions; 0 passes its input through.
        norm: GroupNorm of 32 groups (FCOS), BatchNorm with statistics and affine map of each level's own, or none (RetinaNet).
        deformable: the last convolution samples at learned offsets (thesis 002, 3.3.3).
        levels: of the pyramid; only batch norms ask.
    """

    def __init__(self, channels: int, depth: int, norm: TowerNorm, deformable: Deformable = False, levels: int = 1):
        if norm == "group" and depth and channels % 32:
            raise InputError(
                f"model.neck.channels={channels} does not divide into GroupNorm's 32 groups: use a multiple of 32"
            )
        layers: list[nn.Module] = []
        for i in range(depth):
            if deformable and i == depth - 1:
                layers.append(DeformConv2d(channels, channels, modulated=deformable is True))
            else:
                layers.append(head_conv(channels, channels))
            if norm == "group":
                layers.append(nn.GroupNorm(32, channels))
            elif norm == "batch":
                layers.append(LevelNorms(nn.BatchNorm2d(channels) for _ in range(levels)))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)

    def forward(self, x: Float[Tensor, "b c h w"], level: int = 0) -> Float[Tensor, "b c h w"]:
        """The features of one level's map; its number chooses the batch norms."""
        for layer in self:
            x = layer[level](x) if isinstance(layer, LevelNorms) else layer(x)
        return x


class LevelNorms(nn.ModuleList):
    """The batch norms after a convolution that all levels share, one for each: levels differ in their statistics."""


class Scale(nn.Module):
    """One learnable factor: lets a head shared by all levels fit each level's range of sizes."""

    def __init__(self, value: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([value]))

    def forward(self, x: Tensor) -> Tensor:
        """x times the factor."""
        return x * self.scale


def head_conv(channels: int, out: int, bias: float = 0.0) -> nn.Conv2d:
    """A 3x3 convolution initialised as heads are: normal of deviation 0.01, constant bias."""
    conv = nn.Conv2d(channels, out, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, bias)  # pyright: ignore[reportArgumentType]
    return conv


def same_size(maps: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b _ h w"]]:
    """Maps enlarged bilinearly to the largest one's height and width."""
    height, width = max(one.shape[2] for one in maps), max(one.shape[3] for one in maps)
    return [resized(one, (height, width)) for one in maps]


def resized(x: Float[Tensor, "b c _ _"], size: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """A map brought to (height, width) bilinearly; as it is where it fits."""
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
