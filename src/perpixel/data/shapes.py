"""Synthetic pictures of shapes with exact truth: no download, any number of images, the same ones for the same seed.

Textured shapes lie on a soft background among scratches and specks, cast shadows and hide one another. Masks are what is
visible, pixel by pixel; boxes are their extents.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray
from PIL import Image as Pillow

from perpixel.data.dataset import Dataset, Image, Record
from perpixel.data.labels import align_classes
from perpixel.data.masks import encode
from perpixel.data.outlines import SHAPES, Piece
from perpixel.data.painting import paint_scene
from perpixel.errors import InputError

DEFAULT_SIZE = (160, 192)
_MOST_OBJECTS = 7
_LEAST_VISIBLE = 0.45
Scene = tuple[tuple[Piece, ...], tuple[Bool[ndarray, "h w"], ...]]


class ShapesDataset(Dataset):
    """`count` pictures of shapes, made on the fly.

    Attributes:
        form: how a source of such pictures is named.

    Args:
        count: images.
        size: (height, width) of the images.
        seed: another seed gives other images.
        classes: the classes of a training set, to open an evaluation set with the same labels; None means all shapes.

    Raises:
        InputError: no image, images smaller than 32 pixels, or `classes` that lack a shape.
    """

    form: str = "shapes"

    def __init__(
        self,
        count: int,
        size: tuple[int, int] = DEFAULT_SIZE,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.name = f"{self.form}:{count}:{seed}"
        if count < 1 or seed < 0:
            raise InputError(f"{self.name}: needs at least one image, and a seed of 0 or more, as in {self.form}:200:0")
        if min(size) < 32:
            raise InputError(f"{self.name}: size {size} is too small; shapes need 32 pixels a side")
        numbers = {shape: number for number, shape in enumerate(SHAPES, start=1)}
        self.classes, self.category_ids = align_classes(self.name, numbers, SHAPES, classes)
        self.count, self.size, self.seed, self.skipped = count, size, seed, []

    def __len__(self) -> int:
        return self.count

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image."""
        return np.tile(np.array(self.size, dtype=np.int64), (self.count, 1))

    @property
    def object_counts(self) -> Int64[ndarray, " n"]:
        """Objects of every image."""
        return np.array([len(self._scene(index)[0]) for index in range(self.count)], dtype=np.int64)

    @property
    def box_only_counts(self) -> Int64[ndarray, " n"]:
        """None: the mask of every shape is known."""
        return np.zeros(self.count, dtype=np.int64)

    def record(self, index: int) -> Record:
        """The visible shapes of image `index`."""
        pieces, masks = self._scene(index)
        boxes = np.array([_extent(mask) for mask in masks], dtype=np.float32).reshape(-1, 4)
        return Record(
            id=index + 1,
            path=None,
            size=self.size,
            boxes=boxes,
            labels=np.array([self.classes.index(piece.shape) for piece in pieces], dtype=np.int64),
            shapes=tuple(encode(mask) for mask in masks),
            keypoints=None,
            crowd=np.zeros(len(boxes), dtype=bool),
            annotation_ids=np.arange(len(boxes), dtype=np.int64) + index * _MOST_OBJECTS + 1,
        )

    def image(self, index: int) -> Image:
        """The pixels of image `index`."""
        pieces, _ = self._scene(index)
        return paint_scene(pieces, self.size, np.random.default_rng([self.seed, index, 1]))

    def coco_truth(self) -> dict[str, Any]:
        """Ground truth as COCO's evaluation reads it."""
        images, annotations = [], []
        for index in range(self.count):
            record = self.record(index)
            height, width = record.size
            images.append({"id": record.id, "file_name": f"{index:06}.png", "height": height, "width": width})
            for row, shape in enumerate(record.shapes):
                x1, y1, x2, y2 = record.boxes[row].tolist()
                code = {"size": [height, width], "counts": shape.counts.decode()}  # pyright: ignore
                annotations.append(
                    {
                        "id": int(record.annotation_ids[row]),
                        "image_id": record.id,
                        "category_id": self.category_ids[record.labels[row]],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": int(hotcoco.mask.area(code)),
                        "iscrowd": 0,
                        "segmentation": code,
                    }
                )
        names = zip(self.category_ids, self.classes, strict=True)
        categories = [{"id": number, "name": name} for number, name in names]
        info = {"description": self.name}
        return {"info": info, "images": images, "annotations": annotations, "categories": categories}

    def write_coco(self, folder: str | Path) -> Path:
        """Writes ``images/*.png`` and ``instances.json`` into `folder`; the json's path."""
        folder = Path(folder)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for index in range(self.count):
            Pillow.fromarray(self.image(index)).save(folder / "images" / f"{index:06}.png")
        path = folder / "instances.json"
        path.write_text(json.dumps(self.coco_truth()))
        return path

    def _scene(self, index: int) -> Scene:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return _lay_out(self.size, self.seed, index)


@lru_cache(maxsize=4)
def _lay_out(size: tuple[int, int], seed: int, index: int) -> Scene:
    """Shapes laid down one upon the other, and the mask that stays visible of each."""
    random = np.random.default_rng([seed, index, 0])
    side = min(size)
    pieces: list[Piece] = []
    areas: list[int] = []
    visible: list[ndarray] = []
    wanted = int(random.integers(2, _MOST_OBJECTS + 1))
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


def _extent(mask: Bool[ndarray, "h w"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
