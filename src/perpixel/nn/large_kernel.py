"""A large kernel from thin ones: k x 1 then 1 x k, and 1 x k then k x 1, added (Peng et al. 2017, "Large Kernel Matters")."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LargeKernel(nn.Module):
    """A convolution that sees `kernel` x `kernel` places at the cost of four thin ones.

    Args:
        channels: of the input.
        out: of the result, and between the two convolutions of either path.
        kernel: an odd number of places a side.
    """

    def __init__(self, channels: int, out: int, kernel: int):
        super().__init__()
        self.kernel = kernel
        tall, wide, half = (kernel, 1), (1, kernel), kernel // 2
        # No bias in between: beyond the map's border both paths are 0, so a patch of the map gives what the map gives.
        self.down = nn.Conv2d(channels, out, tall, padding=(half, 0), bias=False)
        self.down_across = nn.Conv2d(out, out, wide, padding=(0, half))
        self.across = nn.Conv2d(channels, out, wide, padding=(0, half), bias=False)
        self.across_down = nn.Conv2d(out, out, tall, padding=(half, 0), bias=False)
        for layer in (self.down, self.down_across, self.across, self.across_down):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.zeros_(self.down_across.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        """The convolution everywhere."""
        return self.down_across(self.down(x)) + self.across_down(self.across(x))

    def at(self, patches: Float[Tensor, "n c k k"]) -> Float[Tensor, "n out"]:
        """What `forward` gives at the middle of each patch, in the precision of the weights."""
        x = patches.to(self.down.weight.dtype)
        first = F.conv2d(F.conv2d(x, self.down.weight), self.down_across.weight, self.down_across.bias)
        second = F.conv2d(F.conv2d(x, self.across.weight), self.across_down.weight)
        return (first + second).flatten(1)
