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
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray
from PIL import Image as Pillow

from perpixel.data.dataset import Dataset, Image, Record
from perpixel.data.labels import align_classes
from perpixel.data.masks import encode
from perpixel.data.painting import background, paint, shadow, textured
from perpixel.errors import InputError

SHAPES = ("disc", "square", "triangle", "star", "ring", "cross")
DEFAULT_SIZE = (160, 192)
_MOST_OBJECTS = 7
_LEAST_VISIBLE = 0.45


class ShapesDataset(Dataset):
    """`count` pictures of shapes, made on the fly.

    Args:
        count: images.
        size: (height, width) of the images.
        seed: another seed gives other images.
        classes: the classes of a training set, to open an evaluation set with the same labels; None means all shapes.

    Raises:
        InputError: no image, images smaller than 32 pixels, or `classes` that lack a shape.
    """

    def __init__(
        self,
        count: int,
        size: tuple[int, int] = DEFAULT_SIZE,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.name = f"shapes:{count}:{seed}"
        if count < 1 or seed < 0:
            raise InputError(f"{self.name}: needs at least one image, and a seed of 0 or more, as in shapes:200:0")
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
        return np.array([len(self.record(index)) for index in range(self.count)], dtype=np.int64)

    def record(self, index: int) -> Record:
        """The visible shapes of image `index`."""
        shapes, masks, _ = self._scene(index)
        boxes = np.array([_extent(mask) for mask in masks], dtype=np.float32).reshape(-1, 4)
        return Record(
            id=index + 1,
            path=None,
            size=self.size,
            boxes=boxes,
            labels=np.array([self.classes.index(SHAPES[shape]) for shape in shapes], dtype=np.int64),
            shapes=tuple(encode(mask) for mask in masks),
            keypoints=None,
            crowd=np.zeros(len(boxes), dtype=bool),
            annotation_ids=np.arange(len(boxes), dtype=np.int64) + index * _MOST_OBJECTS + 1,
        )

    def image(self, index: int) -> Image:
        """The pixels of image `index`."""
        return self._scene(index)[2].copy()

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

    def _scene(self, index: int) -> tuple[tuple[int, ...], tuple[ndarray, ...], Image]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return _draw_scene(self.size, self.seed, index)


@lru_cache(maxsize=4)
def _draw_scene(size: tuple[int, int], seed: int, index: int) -> tuple[tuple[int, ...], tuple[ndarray, ...], Image]:
    """Shapes, their visible masks, and the picture; the objects are laid down one upon the other."""
    random = np.random.default_rng([seed, index])
    canvas = background(size, random)
    shapes: list[int] = []
    whole: list[int] = []
    visible: list[ndarray] = []
    wanted = int(random.integers(2, _MOST_OBJECTS + 1))
    for _ in range(3 * wanted):
        if len(shapes) == wanted:
            break
        shape = int(random.integers(len(SHAPES)))
        side = min(size)
        radius = float(np.exp(random.uniform(np.log(0.07 * side), np.log(0.26 * side))))
        center = random.uniform(0.4 * radius, np.array(size[::-1]) - 0.4 * radius)
        outside = distance(SHAPES[shape], size, (center[0], center[1]), radius, float(random.uniform(0, 2 * np.pi)))
        mask = outside < 0
        hidden = [
            area > 0 and (old & ~mask).sum() < _LEAST_VISIBLE * area for area, old in zip(whole, visible, strict=True)
        ]
        if any(hidden) or mask.sum() < 0.04 * side * 0.04 * side * np.pi:
            continue
        visible = [old & ~mask for old in visible]
        shadow(canvas, outside, radius)
        paint(canvas, textured(size, (center[0], center[1]), radius, random), outside)
        shapes.append(shape)
        whole.append(int(mask.sum()))
        visible.append(mask)
    canvas += random.normal(0, 2.5, canvas.shape)
    picture = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return tuple(shapes), tuple(visible), picture


def distance(
    shape: str, size: tuple[int, int], center: tuple[float, float], radius: float, turn: float
) -> Float32[ndarray, "h w"]:
    """Pixels from each pixel's centre to the outline, negative inside (nearly Euclidean near the outline)."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) + np.float32(0.5)
    dx, dy = x - center[0], y - center[1]
    u, v = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    reach = np.hypot(u, v)
    if shape == "disc":
        out = reach - radius
    elif shape == "ring":
        out = np.abs(reach - 0.76 * radius) - 0.24 * radius
    elif shape == "square":
        out = np.maximum(np.abs(u), np.abs(v)) - 0.8 * radius
    elif shape == "cross":
        wide, narrow = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
        out = np.maximum(wide - 0.95 * radius, narrow - 0.3 * radius)
    else:
        out = _spikes(u, v, 3, radius, 0.5) if shape == "triangle" else _spikes(u, v, 5, radius, 0.45)
    return out.astype(np.float32)


def _spikes(u: ndarray, v: ndarray, count: int, radius: float, waist: float) -> ndarray:
    """A star of `count` tips at `radius` whose notches lie at `waist * radius`; one half tip is folded over the others."""
    half = np.pi / count
    angle = np.abs((np.arctan2(v, u) + half) % (2 * half) - half)
    reach = np.hypot(u, v)
    x, y = reach * np.cos(angle), reach * np.sin(angle)
    notch_x, notch_y = waist * radius * np.cos(half), waist * radius * np.sin(half)
    edge_x, edge_y = notch_x - radius, notch_y
    return ((x - radius) * edge_y - y * edge_x) / np.hypot(edge_x, edge_y)


def _extent(mask: Bool[ndarray, "h w"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
