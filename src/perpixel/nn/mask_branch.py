"""Image-level branches on the finest levels of the pyramid, shared by all instances: CondInst's mask and semantic branch."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from perpixel.ops.masks import aligned_bilinear


def conv_norm(channels: int, out: int, size: int = 3, dilation: int = 1) -> nn.Sequential:
    """A convolution of `size` x `size` that keeps the map's size, BatchNorm, ReLU."""
    conv = nn.Conv2d(channels, out, size, padding=dilation * (size // 2), dilation=dilation, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class MaskBranch(nn.Module):
    """The feature map of all masks, at the stride of the finest level: thesis 002, 5.2.1.

    Args:
        channels: of the pyramid.
        strides: of the levels that are read: the finest alone (the thesis), or P3 to P5 (the released models). Coarser
            ones are brought to `width` channels, enlarged and added.
        width, convs: channels and number of the convolutions after that.
        out: channels of the result, C_mask.
    """

    def __init__(self, channels: int, strides: Sequence[int], width: int, convs: int, out: int):
        super().__init__()
        self.factors = tuple(stride // strides[0] for stride in strides)
        self.refine = nn.ModuleList(conv_norm(channels, width) for _ in strides)
        last = nn.Conv2d(width, out, 1)
        nn.init.kaiming_uniform_(last.weight, a=1)
        nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]
        self.tower = nn.Sequential(*(conv_norm(width, width) for _ in range(convs)), last)

    def forward(self, pyramid: tuple[Float[Tensor, "b c _ _"], ...]) -> Float[Tensor, "b out h w"]:
        """F_mask from the pyramid, finest level first."""
        x = self.refine[0](pyramid[0])
        height, width = x.shape[2:]
        for level in range(1, len(self.factors)):
            coarse = self.refine[level](pyramid[level])
            # Levels of sides that are no power of 2 are rounded up: what is enlarged may be larger.
            x = x + aligned_bilinear(coarse, self.factors[level])[:, :, :height, :width]
        return self.tower(x)


class SemanticBranch(nn.Module):
    """Class logits of every pixel at the stride of the finest level, for the auxiliary loss of table 5.7.

    Args:
        channels: of the pyramid.
        width: of the two convolutions.
        classes: of the instances.
        prior: probability of each class at the start of training.
    """

    def __init__(self, channels: int, width: int, classes: int, prior: float = 0.01):
        super().__init__()
        self.tower = nn.Sequential(conv_norm(channels, width), conv_norm(width, width))
        self.logits = nn.Conv2d(width, classes, 1)
        nn.init.kaiming_uniform_(self.logits.weight, a=1)
        nn.init.constant_(self.logits.bias, -math.log(1 / prior - 1))  # pyright: ignore[reportArgumentType]

    def forward(self, finest: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Logits from the finest level, in the precision of the weights."""
        return self.logits(self.tower(finest.to(self.logits.weight.dtype)))
