"""Mask geometries drawn on the pixel grid, by COCO's own rules."""

import hotcoco.mask
import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from perpixel.data.dataset import Polygons, Rle
from perpixel.errors import InputError


def draw_polygons(polygons: Polygons, size: tuple[int, int]) -> Bool[ndarray, "h w"]:
    """The union of polygons (x, y in continuous pixels) on a grid of (height, width), as COCO draws it.

    Parts outside the grid are cut off.
    """
    mask = np.zeros(size, dtype=bool)
    for polygon in polygons:
        code = hotcoco.mask.frPyObjects([polygon.ravel().tolist()], *size)[0]
        mask |= hotcoco.mask.decode(code).astype(bool)
    return mask


def decode(rle: Rle) -> Bool[ndarray, "h w"]:
    """The mask of a run-length code.

    Raises:
        InputError: the code does not describe a mask of its size.
    """
    try:
        return hotcoco.mask.decode({"size": list(rle.size), "counts": rle.counts}).astype(bool)
    except ValueError as error:
        raise InputError(f"a run-length code does not fit its image: {error}") from error


def encode(mask: Bool[ndarray, "h w"]) -> Rle:
    """The run-length code of a mask."""
    code = hotcoco.mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle((mask.shape[0], mask.shape[1]), code["counts"])


def draw_shape(shape: Polygons | Rle, size: tuple[int, int]) -> Bool[ndarray, "h w"]:
    """A mask geometry as pixels of its own image of (height, width)."""
    return decode(shape) if isinstance(shape, Rle) else draw_polygons(shape, size)
