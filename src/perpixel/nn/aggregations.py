"""The six ways in which a dynamic cell joins two maps of one width (thesis 004, table 6.2 and appendix A.2).

Maps of different sizes are first brought to the larger size.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Aggregation = Literal["sum", "concat", "filters", "sample", "conv3d", "attention"]

AGGREGATIONS: tuple[Aggregation, ...] = ("sum", "concat", "filters", "sample", "conv3d", "attention")
"""Places are the numbers of table 6.2."""

Map = Float[Tensor, "b c h w"]


def build_aggregation(name: Aggregation, channels: int) -> nn.Module:
    """The aggregation of two maps of `channels`."""
    kinds = {
        "sum": WeightedSum,
        "concat": ConcatReduce,
        "filters": PredictedFilters,
        "sample": AffineSampling,
        "conv3d": StackedConvolution,
        "attention": DenseAttention,
    }
    return kinds[name](channels)


class WeightedSum(nn.Module):
    """ID 0: a x + b y, one learnable weight a channel for each input."""

    def __init__(self, channels: int):
        super().__init__()
        self.a = nn.Parameter(torch.ones(channels, 1, 1))
        self.b = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Map, y: Map) -> Map:
        """The sum."""
        return self.a * x + self.b * y


class ConcatReduce(nn.Module):
    """ID 1: concatenation, batch norm, ReLU and a 1x1 convolution of as many groups as there are channels.

    With the groups of listing 1, output channel i reads channels 2i and 2i + 1 of the concatenation: the first half of the
    output sees x alone, the second half y alone. The operation after the next node may mix them. `out` is a multiple of
    `channels`, for a wider result.
    """

    def __init__(self, channels: int, out: int | None = None):
        super().__init__()
        self.norm = nn.BatchNorm2d(2 * channels)
        self.conv = nn.Conv2d(2 * channels, out or channels, 1, groups=channels, bias=False)

    def forward(self, x: Map, y: Map) -> Float[Tensor, "b out h w"]:
        """The reduced concatenation."""
        return self.conv(F.relu(self.norm(torch.cat([x, y], dim=1))))


class PredictedFilters(nn.Module):
    """ID 2: x becomes a 3x3 filter a pixel, whose weights are positive and sum to 1; it is applied to every channel of y."""

    def __init__(self, channels: int):
        super().__init__()
        depthwise = [nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) for _ in range(2)]
        self.filters = nn.Sequential(
            nn.ReLU(), depthwise[0], nn.ReLU(), depthwise[1], nn.ReLU(), nn.Conv2d(channels, 9, 1, bias=False)
        )

    def forward(self, x: Map, y: Map) -> Map:
        """y, each pixel a weighted mean of the 3x3 pixels around it (zero outside the map)."""
        weights = self.filters(x).softmax(dim=1)
        b, c, h, w = y.shape
        around = F.unfold(y, 3, padding=1).view(b, c, 9, h, w)
        return torch.einsum("bckhw,bkhw->bchw", around, weights)


class AffineSampling(nn.Module):
    """ID 3: x sampled bilinearly on an affine grid that y predicts (Jaderberg et al. 2015), plus y.

    The grid is predicted by a 1x1 convolution to 6 channels, ReLU, the mean over the map and a linear layer.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.locate = nn.Conv2d(channels, 6, 1, bias=False)
        self.theta = nn.Linear(6, 6)
        # The grid starts near the identity: a random one would first throw x away.
        with torch.no_grad():
            self.theta.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))
            self.theta.weight.mul_(0.01)

    def forward(self, x: Map, y: Map) -> Map:
        """The sampled x, zero outside of it, plus y."""
        theta = self.theta(F.relu(self.locate(y)).mean(dim=(2, 3))).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid.to(x.dtype), align_corners=False) + y


class StackedConvolution(nn.Module):
    """ID 4: x and y stacked along time, and a depthwise convolution of 2 x 3 x 3 on top.

    Computed as a 2D convolution over interleaved channels, which is the same sum and much faster on a CPU.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 3, padding=1, groups=channels, bias=False)

    def forward(self, x: Map, y: Map) -> Map:
        """The convolution."""
        return self.conv(torch.stack([x, y], dim=2).flatten(1, 2))


class DenseAttention(nn.Module):
    """ID 5: x times the sigmoid of y."""

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x: Map, y: Map) -> Map:
        """The product."""
        return x * y.sigmoid()
