"""Pictures made on the fly with exact truth: no download, any number of images, the same ones for the same seed."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import hotcoco.mask
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from PIL import Image as Pillow

from perpixel.data.dataset import Dataset, Record
from perpixel.data.labels import align_classes
from perpixel.data.masks import encode
from perpixel.errors import InputError

DEFAULT_SIZE = (160, 192)


class Objects(NamedTuple):
    """The objects of an image: class names, what is visible of each, joints where there are any.

    `whole` is what would be visible of each without those before it, where boxes are to go around that.
    """

    names: tuple[str, ...]
    masks: tuple[Bool[ndarray, "h w"], ...]
    keypoints: Float64[ndarray, "n k 3"] | None = None
    whole: tuple[Bool[ndarray, "h w"], ...] | None = None


class GeneratedDataset(Dataset):
    """`count` generated pictures; a kind says how one is laid out (`objects`) and painted (`image`).

    Attributes:
        form: how a source of such pictures is named.
        all_classes: that it has, numbered from 1.
        smallest: least side of an image, in pixels.
        most_objects: of an image.

    Args:
        count: images.
        size: (height, width) of the images.
        seed: another seed gives other images.
        classes: the classes of a training set, to open an evaluation set with the same labels; None means all of the kind.

    Raises:
        InputError: no image, images too small, or `classes` that lack one of the kind.
    """

    form: ClassVar[str]
    all_classes: ClassVar[tuple[str, ...]]
    smallest: ClassVar[int]
    most_objects: ClassVar[int]

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
        if min(size) < self.smallest:
            raise InputError(f"{self.name}: size {size} is too small; {self.form} need {self.smallest} pixels a side")
        numbers = {name: number for number, name in enumerate(self.all_classes, start=1)}
        self.classes, self.category_ids = align_classes(self.name, numbers, self.all_classes, classes)
        self.count, self.size, self.seed, self.skipped = count, size, seed, []

    @abstractmethod
    def objects(self, index: int) -> Objects:
        """What is in image `index`, laid out anew or remembered."""

    def __len__(self) -> int:
        return self.count

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image."""
        return np.tile(np.array(self.size, dtype=np.int64), (self.count, 1))

    @property
    def object_counts(self) -> Int64[ndarray, " n"]:
        """Objects of every image."""
        return np.array([len(self.objects(index).names) for index in range(self.count)], dtype=np.int64)

    @property
    def box_only_counts(self) -> Int64[ndarray, " n"]:
        """None: every mask is known."""
        return np.zeros(self.count, dtype=np.int64)

    def record(self, index: int) -> Record:
        """The objects of image `index`; boxes are the extents of what is visible, or of the whole objects."""
        found = self.objects(index)
        boxes = np.array([_extent(mask) for mask in found.whole or found.masks], dtype=np.float32).reshape(-1, 4)
        return Record(
            id=index + 1,
            path=None,
            size=self.size,
            boxes=boxes,
            labels=np.array([self.classes.index(name) for name in found.names], dtype=np.int64),
            shapes=tuple(encode(mask) for mask in found.masks),
            keypoints=None if found.keypoints is None else found.keypoints.astype(np.float32),
            crowd=np.zeros(len(boxes), dtype=bool),
            annotation_ids=np.arange(len(boxes), dtype=np.int64) + index * self.most_objects + 1,
        )

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
                annotation = {
                    "id": int(record.annotation_ids[row]),
                    "image_id": record.id,
                    "category_id": self.category_ids[record.labels[row]],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(hotcoco.mask.area(code)),
                    "iscrowd": 0,
                    "segmentation": code,
                }
                if record.keypoints is not None:
                    joints = record.keypoints[row].astype(np.float64)
                    known = joints[:, 2] > 0
                    joints[known, :2] -= 0.5  # COCO counts keypoints by pixel index
                    annotation |= {"keypoints": joints.ravel().tolist(), "num_keypoints": int(known.sum())}
                annotations.append(annotation)
        categories, info = self.coco_categories(), {"description": self.name}
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


def _extent(mask: Bool[ndarray, "h w"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
