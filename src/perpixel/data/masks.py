"""Mask geometries drawn on the pixel grid, by COCO's own rules."""

from dataclasses import dataclass

import hotcoco.mask
import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from perpixel.data.dataset import Polygons, Rle
from perpixel.errors import InputError


@dataclass(frozen=True)
class Patch:
    """A mask of which only the smallest rectangle around it is kept.

    Attributes:
        top, left: where the rectangle stands in the image.
        pixels: the rectangle; (0, 0) for an empty mask.
    """

    top: int
    left: int
    pixels: Bool[ndarray, "h w"]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """xyxy around the mask; all zero for an empty one."""
        height, width = self.pixels.shape
        return self.left, self.top, self.left + width, self.top + height

    @property
    def center(self) -> tuple[float, float]:
        """Mean (x, y) pixel index, no half added; NaN for an empty mask."""
        area = int(self.pixels.sum())
        if not area:
            return float("nan"), float("nan")
        x = self.pixels.sum(0) @ np.arange(self.pixels.shape[1]) / area
        y = self.pixels.sum(1) @ np.arange(self.pixels.shape[0]) / area
        return float(self.left + x), float(self.top + y)

    def paste(self, mask: Bool[ndarray, "h w"]) -> None:
        """Writes the mask into an all-false array of the image."""
        x1, y1, x2, y2 = self.box
        mask[y1:y2, x1:x2] = self.pixels


EMPTY = Patch(0, 0, np.zeros((0, 0), dtype=bool))


def patch_polygons(polygons: Polygons, size: tuple[int, int]) -> Patch:
    """The union of polygons (x, y in continuous pixels) on a grid of (height, width), as COCO draws it.

    Parts outside the grid are cut off.
    """
    return _patch(hotcoco.mask.merge(hotcoco.mask.frPyObjects([p.ravel().tolist() for p in polygons], *size)))


def patch_code(rle: Rle) -> Patch:
    """The mask of a run-length code.

    Raises:
        InputError: the code does not describe a mask of its size.
    """
    try:
        return _patch({"size": list(rle.size), "counts": rle.counts})
    except ValueError as error:
        raise InputError(f"a run-length code does not fit its image: {error}") from error


def encode(mask: Bool[ndarray, "h w"]) -> Rle:
    """The run-length code of a mask."""
    code = hotcoco.mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle((mask.shape[0], mask.shape[1]), code["counts"])


def draw_shape(shape: Polygons | Rle, size: tuple[int, int]) -> Bool[ndarray, "h w"]:
    """A mask geometry as pixels of its own image of (height, width)."""
    mask = np.zeros(size, dtype=bool)
    (patch_code(shape) if isinstance(shape, Rle) else patch_polygons(shape, size)).paste(mask)
    return mask


def _patch(code: dict) -> Patch:
    left, top, width, height = (int(value) for value in hotcoco.mask.toBbox(code))
    pixels = hotcoco.mask.decode(code)[top : top + height, left : left + width]
    return Patch(top, left, np.ascontiguousarray(pixels).view(bool)) if width and height else EMPTY
