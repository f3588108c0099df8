"""What DR1Mask computes (thesis 004, chapter 5): convolutions that change from place to place, attentions from few numbers.

Pure functions; the weights come from `perpixel.nn.dr1` and `perpixel.models.dr1mask`.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Enlarging = Literal["aligned", "bilinear"]


def dr1_conv(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "c c s s"],
    a: Float[Tensor, "b c h w"] | None,
    b: Float[Tensor, "b c h w"] | None,
) -> Float[Tensor, "b c h w"]:
    """Dynamic rank-1 convolution, Conv(x * a) * b: eq. 5.4.

    At each place it is a convolution with weights of its own, those of `weight` times a (of the place that is read) times b (of
    the place that is written): eq. 5.1 to 5.3.

    Args:
        x: input.
        weight: what all places share.
        a, b: the dynamic factors; None: without that one (table 5.1).
    """
    y = F.conv2d(x if a is None else x * a, weight, padding=weight.shape[-1] // 2)
    return y if b is None else y * b


def doubled(x: Float[Tensor, "b c h w"], sampling: Enlarging = "aligned") -> Float[Tensor, "b c h2 w2"]:
    """A map of twice the sides.

    A convolution of stride 2 is centred on every second cell of its input, the first cell included. `aligned` is its inverse:
    cell 2 i gets value i, the cells between get means, and the last row and column repeat (5.5.2, table 5.5). `bilinear` centres
    each value on the two cells that a map of exactly half the side would give it.
    """
    height, width = x.shape[2:]
    if sampling == "bilinear":
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    framed = F.pad(x, (0, 1, 0, 1), mode="replicate")
    large = F.interpolate(framed, size=(2 * height + 1, 2 * width + 1), mode="bilinear", align_corners=True)
    return large[:, :, :-1, :-1]


def enlarged_to(
    x: Float[Tensor, "b c _ _"], finer: Float[Tensor, "b _ h w"], sampling: Enlarging
) -> Float[Tensor, "b c h w"]:
    """A map at the size of that of the next finer level.

    A finer side that is odd has half of it rounded up below: twice that is one too much. `aligned` cuts the last row or column
    off, so values stay where they belong; `bilinear` squeezes the map.
    """
    height, width = finer.shape[2:]
    if sampling == "bilinear":
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    return doubled(x)[:, :, :height, :width]


def weighted_sum(regions: Float[Tensor, "n d h w"], weights: Float[Tensor, "n d"]) -> Float[Tensor, "n h w"]:
    """Mask logits from one weight a channel, as in YOLACT (table 5.4, "Vector")."""
    return project(regions, weights[:, None])[:, 0]


def project(regions: Float[Tensor, "#n d h w"], weights: Float[Tensor, "n k d"]) -> Float[Tensor, "n k h w"]:
    """Each instance's channels brought to K by its own 1x1 convolution: eq. 5.7."""
    return (weights @ regions.flatten(2)).unflatten(2, regions.shape[2:])


def factored_attention(
    diagonals: Float[Tensor, "n k r"], u: Float[Tensor, "k r m"], v: Float[Tensor, "k r m"]
) -> Float[Tensor, "n k m m"]:
    """Attentions from r numbers a basis, U^T diag(s) V: eq. 5.8."""
    return (u.mT * diagonals[:, :, None, :]) @ v
