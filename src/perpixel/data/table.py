"""Annotations of a whole data set as flat arrays: small in memory, quick to send to workers.

A reader (COCO, VOC, YOLO) appends images and objects to a `TableBuilder`; `TableDataset` serves them as records.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from perpixel.data.dataset import Dataset, Image, Polygons, Record, Rle, Shape, flip_pairs
from perpixel.data.image import read_image
from perpixel.data.masks import draw_shape
from perpixel.errors import InputError
from perpixel.structures import COCO_KEYPOINTS, COCO_SKELETON


class Faults:
    """What to do with bad data: end with one sentence, or note it and go on.

    Attributes:
        skipped: the notes.
    """

    def __init__(self, skip_bad: bool) -> None:
        self.skip_bad = skip_bad
        self.skipped: list[str] = []

    def report(self, sentence: str) -> None:
        """Notes a bad image or object that is left out.

        Raises:
            InputError: unless bad data is to be skipped.
        """
        if not self.skip_bad:
            raise InputError(f"{sentence}; correct it, or leave out all such data with data.skip_bad=true")
        self.skipped.append(sentence)


class TableBuilder:
    """Grows by images and objects; `freeze` turns it into arrays."""

    def __init__(self) -> None:
        self.image_ids: list[int | str] = []
        self.image_files: list[str] = []
        self.image_sizes = array("l")
        self.image_rows = array("q")
        self.labels = array("q")
        self.annotation_ids = array("q")
        self.crowd = array("b")
        self.areas = array("d")
        self.boxes = array("d")
        self.keypoints = array("d")
        self.keypoint_ends = array("q", [0])
        self.coordinates = array("d")
        self.polygon_ends = array("q", [0])
        self.shape_ends = array("q", [0])
        self.codes = bytearray()
        self.code_ends = array("q", [0])

    def add_image(self, identity: int | str, file: str, size: tuple[int, int]) -> int:
        """Appends an image; its row."""
        self.image_ids.append(identity)
        self.image_files.append(file)
        self.image_sizes.extend(size)
        return len(self.image_ids) - 1

    def add_object(
        self,
        image_row: int,
        annotation_id: int,
        label: int,
        box: array,
        *,
        area: float | int = math.nan,
        crowd: bool = False,
        polygons: Iterable[array] = (),
        code: bytes = b"",
        keypoints: Sequence[float] = (),
    ) -> None:
        """Appends an object.

        Args:
            image_row: what `add_image` returned; objects may come in any order.
            annotation_id: the file's number.
            label: class index.
            box: x, y, width, height in pixels, as COCO has it.
            area: the file's area; NaN stands for that of the mask or the box.
            crowd: see `Record.crowd`.
            polygons: flat x, y, x, y ... arrays, or nothing.
            code: compressed run-length code, or nothing.
            keypoints: x, y, visibility of each, at pixel centres; nothing means none is labelled.
        """
        self.image_rows.append(image_row)
        self.annotation_ids.append(annotation_id)
        self.labels.append(label)
        self.boxes.extend(box)
        self.areas.append(area)
        self.crowd.append(crowd)
        for polygon in polygons:
            self.coordinates.extend(polygon)
            self.polygon_ends.append(len(self.coordinates))
        self.shape_ends.append(len(self.polygon_ends) - 1)
        self.codes += code
        self.code_ends.append(len(self.codes))
        self.keypoints.extend(keypoints)
        self.keypoint_ends.append(len(self.keypoints))

    def __len__(self) -> int:
        return len(self.image_rows)


class TableDataset(Dataset):
    """A data set read from files, held as flat arrays.

    Args:
        name: the source as the user wrote it.
        builder: all images and objects; an object whose image row is -1 is left out.
        folder: where the image files lie.
        classes: names of the labels.
        category_ids: the file's numbers of the classes.
        keypoint_names: names of the keypoints.
        skipped: what the reader left out.
        skeleton: pairs of keypoints that a limb joins; by default COCO's where the keypoints are COCO's.
    """

    def __init__(
        self,
        name: str,
        builder: TableBuilder,
        folder: Path,
        classes: tuple[str, ...],
        category_ids: tuple[int, ...],
        keypoint_names: tuple[str, ...],
        skipped: list[str],
        skeleton: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.name, self.folder, self.skipped = name, folder, skipped
        self.classes, self.category_ids, self.keypoint_names = classes, category_ids, keypoint_names
        self.flip_pairs = flip_pairs(keypoint_names)
        self.skeleton = skeleton or (COCO_SKELETON if keypoint_names == COCO_KEYPOINTS else ())
        self._ids, self._files = builder.image_ids, builder.image_files
        self._sizes = np.array(builder.image_sizes, dtype=np.int64).reshape(-1, 2)
        rows = np.array(builder.image_rows, dtype=np.int64)
        order = np.argsort(rows, kind="stable")
        order = order[rows[order] >= 0]
        self._order = order
        self._first = np.searchsorted(rows[order], np.arange(len(self._ids) + 1))
        self._labels = np.array(builder.labels, dtype=np.int64)[order]
        self._annotation_ids = np.array(builder.annotation_ids, dtype=np.int64)[order]
        self._crowd = np.array(builder.crowd, dtype=bool)[order]
        self._areas = np.array(builder.areas, dtype=np.float64)[order]
        self._boxes = np.array(builder.boxes, dtype=np.float64).reshape(-1, 4)[order]
        self._keypoints = _dense_keypoints(builder, len(keypoint_names))[order] if keypoint_names else None
        self._coordinates = np.array(builder.coordinates, dtype=np.float64)
        self._polygon_ends = np.array(builder.polygon_ends, dtype=np.int64)
        self._shape_ends = np.array(builder.shape_ends, dtype=np.int64)
        self._codes = bytes(builder.codes)
        self._code_ends = np.array(builder.code_ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image."""
        return self._sizes

    @property
    def object_counts(self) -> Int64[ndarray, " n"]:
        """Objects of every image, crowds not counted."""
        return self._counts(~self._crowd)

    @property
    def box_only_counts(self) -> Int64[ndarray, " n"]:
        """Objects of every image of which only the box is known, crowds not counted."""
        drawn = (np.diff(self._code_ends) > 0) | (np.diff(self._shape_ends) > 0)
        return self._counts(~self._crowd & ~drawn[self._order])

    def _counts(self, objects: Bool[ndarray, " m"]) -> Int64[ndarray, " n"]:
        """How many of these rows each image has."""
        total = np.concatenate([[0], np.cumsum(objects)])
        return (total[self._first[1:]] - total[self._first[:-1]]).astype(np.int64)

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        return self.folder / self._files[index]

    def record(self, index: int) -> Record:
        """The objects of image `index`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows = slice(self._first[index], self._first[index + 1])
        height, width = (int(side) for side in self._sizes[index])
        boxes = np.clip(self.stated_boxes(index), 0, [width, height, width, height])
        return Record(
            id=self._ids[index],
            path=self.path(index),
            size=(height, width),
            boxes=boxes.astype(np.float32),
            labels=self._labels[rows],
            shapes=tuple(self._shape(row, (height, width)) for row in range(rows.start, rows.stop)),
            keypoints=None if self._keypoints is None else self._keypoints[rows],
            crowd=self._crowd[rows],
            annotation_ids=self._annotation_ids[rows],
        )

    def stated_boxes(self, index: int) -> Float64[ndarray, "n 4"]:
        """The boxes of image `index` as the files say them: xyxy, not clipped to the image."""
        boxes = self._boxes[self._first[index] : self._first[index + 1]].copy()
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def image(self, index: int) -> Image:
        """The pixels of image `index`, upright RGB."""
        height, width = (int(side) for side in self._sizes[index])
        return read_image(self.path(index), (height, width))

    def coco_truth(self) -> dict[str, Any]:
        """Ground truth as COCO's evaluation reads it: the file's own numbers, boxes, areas and polygons."""
        sizes = self._sizes.tolist()
        return {
            "info": {"description": self.name},
            "images": [
                {"id": identity, "file_name": file, "height": height, "width": width}
                for identity, file, (height, width) in zip(self._ids, self._files, sizes, strict=True)
            ],
            "categories": self.coco_categories(),
            "annotations": [
                self._annotation(row, image)
                for image in range(len(self))
                for row in range(self._first[image], self._first[image + 1])
            ],
        }

    def _annotation(self, row: int, image: int) -> dict[str, Any]:
        height, width = self._sizes[image].tolist()
        shape = self._shape(row, (height, width))
        box, area = self._boxes[row].tolist(), float(self._areas[row])
        if math.isnan(area):
            area = box[2] * box[3] if shape is None else float(draw_shape(shape, (height, width)).sum())
        entry: dict[str, Any] = {
            "id": int(self._annotation_ids[row]),
            "image_id": self._ids[image],
            "category_id": self.category_ids[self._labels[row]],
            "bbox": box,
            "area": area,
            "iscrowd": int(self._crowd[row]),
        }
        if isinstance(shape, Rle):
            entry["segmentation"] = {"size": [height, width], "counts": shape.counts.decode()}
        elif shape is not None:
            entry["segmentation"] = [polygon.ravel().tolist() for polygon in shape]
        if self._keypoints is not None:
            values = self._keypoints[row].astype(np.float64)
            seen = values[:, 2] > 0
            values[seen, :2] -= 0.5  # back from pixel centres to COCO's pixel indices
            entry["keypoints"] = values.ravel().tolist()
            entry["num_keypoints"] = int(seen.sum())
        return entry

    def _shape(self, row: int, size: tuple[int, int]) -> Shape:
        """The mask of a row of the sorted arrays."""
        stored = self._order[row]
        begin, end = self._code_ends[stored : stored + 2]
        if end > begin:
            return Rle(size, self._codes[begin:end])
        begin, end = self._shape_ends[stored : stored + 2]
        if end == begin:
            return None
        ends = self._polygon_ends
        polygons: Polygons = tuple(
            self._coordinates[ends[part] : ends[part + 1]].reshape(-1, 2) for part in range(begin, end)
        )
        return polygons


def _dense_keypoints(builder: TableBuilder, count: int) -> ndarray:
    """(objects, count, 3); objects without keypoints have none labelled."""
    dense = np.zeros((len(builder), count, 3), dtype=np.float32)
    lengths = np.diff(np.array(builder.keypoint_ends))
    has = lengths == 3 * count
    dense[has] = np.array(builder.keypoints, dtype=np.float64)[np.repeat(has, lengths)].reshape(-1, count, 3)
    return dense
