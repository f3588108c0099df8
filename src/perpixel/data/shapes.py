"""Synthetic pictures of shapes with exact truth.

Textured shapes lie on a soft background among scratches and specks, cast shadows and hide one another. Masks are what is
visible, pixel by pixel; boxes are their extents.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from perpixel.data.dataset import Image
from perpixel.data.generated import GeneratedDataset, Objects
from perpixel.data.outlines import SHAPES, Piece
from perpixel.data.painting import paint_scene

_LEAST_VISIBLE = 0.45
Scene = tuple[tuple[Piece, ...], tuple[Bool[ndarray, "h w"], ...]]


class ShapesDataset(GeneratedDataset):
    """Pictures of shapes, a class each."""

    form = "shapes"
    all_classes = SHAPES
    smallest = 32
    most_objects = 7

    def objects(self, index: int) -> Objects:
        """The visible shapes of image `index`."""
        pieces, masks = self._scene(index)
        return Objects(tuple(piece.shape for piece in pieces), masks)

    def image(self, index: int) -> Image:
        """The pixels of image `index`."""
        pieces, _ = self._scene(index)
        return paint_scene(pieces, self.size, np.random.default_rng([self.seed, index, 1]))

    def _scene(self, index: int) -> Scene:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return _lay_out(self.size, self.seed, index, self.most_objects)


@lru_cache(maxsize=4)
def _lay_out(size: tuple[int, int], seed: int, index: int, most: int) -> Scene:
    """Shapes laid down one upon the other, and the mask that stays visible of each."""
    random = np.random.default_rng([seed, index, 0])
    side = min(size)
    pieces: list[Piece] = []
    areas: list[int] = []
    visible: list[ndarray] = []
    wanted = int(random.integers(2, most + 1))
    for _ in range(3 * wanted):
        if len(pieces) == wanted:
            break
        shape = SHAPES[int(random.integers(len(SHAPES)))]
        radius = float(np.exp(random.uniform(np.log(0.07 * side), np.log(0.26 * side))))
        x, y = random.uniform(0.4 * radius, np.array(size[::-1]) - 0.4 * radius)
        piece = Piece(shape, (float(x), float(y)), radius, float(random.uniform(0, 2 * np.pi)))
        mask = np.zeros(size, dtype=bool)
        window = piece.window(size)
        mask[window] = piece.distance(window) < 0
        left = [old & ~mask for old in visible]
        hides = any(rest.sum() < _LEAST_VISIBLE * area for rest, area in zip(left, areas, strict=True))
        if not hides and mask.sum() >= 0.005 * side * side:
            pieces.append(piece)
            areas.append(int(mask.sum()))
            visible = [*left, mask]
    return tuple(pieces), tuple(visible)
