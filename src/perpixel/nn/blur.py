"""Convolutions that blur before they leave values out: thesis 004, 3.3.2, eq. 3.4."""

from jaxtyping import Float
from timm.layers.blur_pool import BlurPool2d
from torch import Tensor, nn

from perpixel.errors import InputError


class BlurConv2d(nn.Conv2d):
    """A convolution without stride, then a blur with it: Blur_{M,s} after Conv_{K,1}.

    The blur is the binomial kernel of M x M (1 2 1 over 4, for 3), the usual stand-in for a Gaussian (Zhang 2019), over mirrored
    borders. Weight and bias are a plain convolution's and carry its names, so plain weights load into it; the blur has none.

    Args:
        conv: the strided convolution whose place it takes; weight and bias are shared with it.
        size: M.
    """

    def __init__(self, conv: nn.Conv2d, size: int):
        kernel, padding, dilation = conv.kernel_size, conv.padding, conv.dilation
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            kernel,  # pyright: ignore[reportArgumentType]
            padding=padding,  # pyright: ignore[reportArgumentType]
            dilation=dilation,  # pyright: ignore[reportArgumentType]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.blur = BlurPool2d(filt_size=size, stride=conv.stride[0])

    def forward(self, input: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b out _ _"]:
        """Eq. 3.4. A 1x1 convolution commutes with the blur, and costs a quarter after it."""
        if self.kernel_size == (1, 1):
            return super().forward(self.blur(input))
        return self.blur(super().forward(input))


def blur_strided(network: nn.Module, size: int, name: str) -> None:
    """Puts a `BlurConv2d` in the place of every strided convolution that reads features; one that reads the image stays.

    Args:
        network: changed in place.
        size: M, odd.
        name: of the network, for the message.

    Raises:
        InputError: there is none, or one is no plain convolution of stride 2.
    """
    strided = [
        (path, part)
        for path, part in network.named_modules()
        if isinstance(part, nn.Conv2d) and max(part.stride) > 1 and part.in_channels != 3
    ]
    if not strided:
        raise InputError(f"backbone.blur={size}: {name} has no strided convolution of features; use blur=null")
    for path, conv in strided:
        if type(conv) is not nn.Conv2d or tuple(conv.stride) != (2, 2):
            raise InputError(
                f"backbone.blur={size} is for plain convolutions of stride 2, and {name} has a {type(conv).__name__} of "
                f"stride {conv.stride[0]}; use blur=null, or take a ResNet or MobileNetV2"
            )
        parent, _, own = path.rpartition(".")
        setattr(network.get_submodule(parent), own, BlurConv2d(conv, size))
