"""From features over a box to a mask over it: Mask R-CNN's mask head (He et al. 2017), one mask whatever the class."""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads


class RegionMask(nn.Module):
    """3x3 convolutions with ReLU, a deconvolution that doubles the size, a 1x1 convolution to one logit.

    Args:
        channels: of the features.
        width: of the convolutions and the deconvolution.
        convs: how many 3x3 convolutions.
    """

    def __init__(self, channels: int, width: int, convs: int):
        super().__init__()
        self.convs = MaskRCNNHeads(channels, [width] * convs, dilation=1)
        self.enlarge = nn.ConvTranspose2d(width if convs else channels, width, 2, stride=2)
        self.to_logits = nn.Conv2d(width, 1, 1)
        nn.init.kaiming_normal_(self.enlarge.weight, mode="fan_out", nonlinearity="relu")
        # The first step stands at even odds, whatever the size of the features.
        nn.init.normal_(self.to_logits.weight, std=0.001)
        for layer in (self.enlarge, self.to_logits):
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: Float[Tensor, "n c k k"]) -> Float[Tensor, "n s s"]:
        """Logits at twice the size of the features."""
        return self.to_logits(self.enlarge(self.convs(features)).relu())[:, 0]
