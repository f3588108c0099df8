"""A mask of several parts and holes as one closed line, for forms that know nothing else."""

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from perpixel.data.dataset import Polygons, Rle
from perpixel.ops.contours import polygons


def one_outline(shape: Polygons | Rle, mask: Bool[ndarray, "h w"]) -> Float64[ndarray, "n 2"]:
    """The rings of a mask joined by lines that go forth and back on the same way, and so enclose nothing.

    Args:
        shape: the mask's polygons, which are joined as they are, or its code, whose pixels are outlined.
        mask: its pixels, not empty.
    """
    if isinstance(shape, Rle):
        rings = [np.array(ring, dtype=np.float64) for part in polygons(mask) for ring in (part.outline, *part.holes)]
    else:
        rings = list(shape)
    path, left = rings[0], rings[1:]
    while left:
        distances = [((path[:, None] - ring[None]) ** 2).sum(-1) for ring in left]
        nearest = int(np.argmin([distance.min() for distance in distances]))
        ring = left.pop(nearest)
        at, start = np.unravel_index(int(distances[nearest].argmin()), distances[nearest].shape)
        turned = np.roll(ring, -int(start), axis=0)
        path = np.concatenate([path[: at + 1], turned, turned[:1], path[at:]])
    return path
