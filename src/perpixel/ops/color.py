"""Colours as people see them."""

import torch
from jaxtyping import Float
from torch import Tensor

# sRGB's primaries in CIE XYZ (IEC 61966-2-1, as scikit-image rounds them), and its white, D65 seen at 2 degrees.
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)


def lab(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """CIE L*a*b* of sRGB colours: equal distances look about equally far apart.

    Args:
        rgb: 0..1.

    Returns:
        L from 0 (black) to 100 (white), a from green to red, b from blue to yellow.
    """
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("ij,bjhw->bihw", linear.new_tensor(_TO_XYZ), linear)
    relative = xyz / linear.new_tensor(_WHITE)[:, None, None]
    # Below (6 / 29)^3 the cube root is continued by its tangent; CIE's rounded numbers.
    x, y, z = torch.where(relative > 0.008856, relative ** (1 / 3), 7.787 * relative + 16 / 116).unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
