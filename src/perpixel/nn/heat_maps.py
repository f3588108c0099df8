"""Heat maps of keypoints from one level of the pyramid."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from perpixel.nn.layers import head_conv


class HeatMaps(nn.Module):
    """Two 3x3 convolutions with ReLU and one to a map for each keypoint (thesis 002, 4.2.3).

    Args:
        channels: of the level.
        width: of the two convolutions.
        keypoints: K.
        prior: probability of a keypoint at the start of training, as focal loss wants it.
    """

    def __init__(self, channels: int, width: int, keypoints: int, prior: float = 0.01):
        super().__init__()
        self.first = head_conv(channels, width)
        self.second = head_conv(width, width)
        self.logits = head_conv(width, keypoints, bias=-math.log(1 / prior - 1))

    def forward(self, level: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Logits of the K maps."""
        x = level.to(self.first.weight.dtype)
        return self.logits(self.second(self.first(x).relu()).relu())
