"""Panoptic FPN's semantic branch (Kirillov et al. 2019, 3.1): the class of every pixel from all levels of the pyramid."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.errors import InputError

GROUPS = 32


class StuffBranch(nn.Module):
    """Each level is brought to the finest one's stride, halving the stride a stage; the sum gives class logits.

    A stage is a 3x3 convolution, GroupNorm, ReLU and enlargement by 2; the finest level has one stage without enlargement.

    Args:
        channels: of the pyramid.
        strides: of the levels that are read, finest first, each twice the one before.
        width: channels of the stages.
        classes: of the logits.
    """

    def __init__(self, channels: int, strides: tuple[int, ...], width: int, classes: int):
        super().__init__()
        if width % GROUPS:
            raise InputError(f"model.width={width} does not divide into GroupNorm's {GROUPS} groups: use a multiple")
        self.stride = strides[0]
        self.levels = nn.ModuleList(
            nn.ModuleList(_stage(channels if i == 0 else width, width) for i in range(max(1, level)))
            for level in range(len(strides))
        )
        self.predictor = nn.Conv2d(width, classes, 1)
        # Every class as likely as any other at first, whatever their number.
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, pyramid: tuple[Float[Tensor, "b c _ _"], ...]) -> Float[Tensor, "b k h w"]:
        """Logits at the stride of the finest of these levels."""
        height, width = pyramid[0].shape[2:]
        total = None
        for level, (stages, x) in enumerate(zip(self.levels, pyramid, strict=True)):
            for stage in stages:  # pyright: ignore[reportGeneralTypeIssues]
                x = stage(x)
                if level:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            # Levels of sides that are no power of 2 are rounded up: what is enlarged may be larger.
            x = x[:, :, :height, :width]
            total = x if total is None else total + x
        assert total is not None
        return self.predictor(total)


def _stage(channels: int, out: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, out), nn.ReLU(inplace=True))
