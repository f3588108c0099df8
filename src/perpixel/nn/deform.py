"""Deformable 3x3 convolutions: a convolution that samples its input where a second convolution tells it to."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformConv2d(nn.Conv2d):
    """A convolution at learned offsets (Dai et al. 2017), each sample weighted where `modulated` (Zhu et al. 2019, "v2").

    Its own weight and bias carry the names of a plain convolution's, so plain weights load into it. The convolution
    `offset` predicts, for every sample of the kernel, a shift (y, x) in pixels of the input map and, if modulated, the logit
    of a weight 0..1. It starts at zero: no shift, and weight 1/2.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as of `nn.Conv2d`.
        modulated: v2 (3 numbers a sample) or v1 (2 numbers).
        offset_groups: parts of the input's channels that are sampled at offsets of their own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        modulated: bool = True,
        offset_groups: int = 1,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.modulated = modulated
        nn.init.normal_(self.weight, std=0.01)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        samples = offset_groups * kernel_size * kernel_size
        self.offset = nn.Conv2d(
            in_channels, samples * (3 if modulated else 2), kernel_size, stride, padding, dilation, bias=True
        )
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, input: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b out _ _"]:
        """The convolution at the predicted samples."""
        predicted = self.offset(input)
        mask = None
        if self.modulated:
            offset, logit = torch.split(predicted, [predicted.shape[1] // 3 * 2, predicted.shape[1] // 3], dim=1)
            mask = logit.sigmoid()
        else:
            offset = predicted
        # At least float32: the processor has no other kernel, and eight bits of a position are too few.
        exact = torch.promote_types(self.weight.dtype, torch.float32)
        out = deform_conv2d(
            input.to(exact),
            offset.to(exact),
            self.weight.to(exact),
            None if self.bias is None else self.bias.to(exact),
            stride=self.stride,  # pyright: ignore[reportArgumentType]
            padding=self.padding,  # pyright: ignore[reportArgumentType]
            dilation=self.dilation,  # pyright: ignore[reportArgumentType]
            mask=None if mask is None else mask.to(exact),
        )
        return out.to(input.dtype)

    @classmethod
    def like(cls, conv: nn.Conv2d, modulated: bool = True) -> "DeformConv2d":
        """A deformable convolution with the geometry and the weights of a plain one."""
        (kernel, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, conv.padding  # pyright: ignore
        out = cls(
            conv.in_channels,
            conv.out_channels,
            kernel,
            stride,
            padding,  # pyright: ignore[reportArgumentType]
            conv.dilation[0],
            conv.groups,
            conv.bias is not None,
            modulated,
        )
        out.weight = conv.weight
        out.bias = conv.bias
        return out
