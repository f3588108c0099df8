"""COCO's panoptic form as a data set: a json that lists the segments of each image, and a folder of pictures that show them."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Int64, UInt8
from numpy import ndarray

from perpixel.data.coco import BadEntry, CocoReader
from perpixel.data.dataset import Dataset, Rle, Shape
from perpixel.data.json_stream import members
from perpixel.data.labels import align_classes
from perpixel.data.masks import encode, patch_code, patch_polygons
from perpixel.data.panoptic_format import ids_of_colors, read_colors, rows_of_ids
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.errors import InputError
from perpixel.structures import VOID, Segments, Stuff


def read_panoptic(
    path: Path,
    images: Path | None = None,
    pictures: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    stuff: Sequence[str] | None = None,
    skip_bad: bool = False,
) -> "PanopticDataset":
    """The data set of a panoptic json. Categories with ``isthing`` 1 have objects, the others are stuff.

    Pictures are read when an image is asked for; boxes and areas come from the json.

    Args:
        path: the json file.
        images: the folder of the photos; None looks for it near the file.
        pictures: the folder of the pictures of segments; None means the json's name without its ending, beside it.
        classes, stuff: those of the training set, to open an evaluation set with the same labels; no stuff leaves it out.
        skip_bad: leave out bad images and segments and list them, instead of ending at the first.

    Raises:
        InputError: names the file, the entry and the field.
    """
    reader = _Reader(path, pictures or path.with_suffix(""), Faults(skip_bad))
    for member, items in members(path):
        reader.take(member, items)
    return reader.panoptic(images, classes, stuff)


class PanopticDataset(TableDataset):
    """A data set whose masks and stuff lie in pictures.

    Args:
        name, builder, folder, classes, category_ids, skipped: as of `TableDataset`.
        stuff: classes without objects.
        pictures: the file of each image's picture.
        object_ids: segment number of each object, in the builder's order.
        stuff_segments: of each image segment numbers and classes of stuff.
    """

    def __init__(
        self,
        name: str,
        builder: TableBuilder,
        folder: Path,
        classes: tuple[str, ...],
        category_ids: tuple[int, ...],
        skipped: list[str],
        stuff: Stuff,
        pictures: Sequence[Path],
        object_ids: Int64[ndarray, " n"],
        stuff_segments: tuple[Int64[ndarray, " m"], Int64[ndarray, " m"], Int64[ndarray, " m"]],
    ) -> None:
        super().__init__(name, builder, folder, classes, category_ids, (), skipped)
        self.stuff = stuff
        self._pictures = tuple(pictures)
        self._object_ids = object_ids[self._order]
        images, numbers, labels = (column[np.argsort(stuff_segments[0], kind="stable")] for column in stuff_segments)
        self._first_stuff = np.searchsorted(images, np.arange(len(self) + 1))
        self._stuff_ids, self._stuff_labels = numbers, labels
        self._latest: tuple[int, Int32[ndarray, "h w"]] | None = None

    @property
    def box_only_counts(self) -> Int64[ndarray, " n"]:
        """None: every object is drawn."""
        return np.zeros(len(self), dtype=np.int64)

    def stuff_map(self, index: int) -> UInt8[ndarray, "h w"]:
        """Of every pixel of image `index`: 0 an object, s + 1 stuff of class s, `VOID` unknown."""
        rows = self._rows(index)
        objects = self._first[index + 1] - self._first[index]
        stuff = self._stuff_labels[self._first_stuff[index] : self._first_stuff[index + 1]]
        values = np.concatenate([np.zeros(objects), np.where(stuff < 0, VOID, stuff + 1), [VOID]]).astype(np.uint8)
        return values[rows]

    def _shape(self, row: int, size: tuple[int, int]) -> Shape:
        image = int(np.searchsorted(self._first, row, side="right")) - 1
        return encode(self._rows(image) == row - self._first[image])

    def _rows(self, index: int) -> Int32[ndarray, "h w"]:
        """Each pixel's segment: the image's objects, then its stuff; -1 for none. The latest picture is kept."""
        if self._latest is None or self._latest[0] != index:
            path, (height, width) = self._pictures[index], self._sizes[index].tolist()
            ids = ids_of_colors(read_colors(path, (height, width)))
            objects = self._object_ids[self._first[index] : self._first[index + 1]]
            stuff = self._stuff_ids[self._first_stuff[index] : self._first_stuff[index + 1]]
            self._latest = index, rows_of_ids(ids, np.concatenate([objects, stuff]), str(path))
        return self._latest[1]


class _Reader(CocoReader):
    """Reads every segment as an object; those of stuff are taken out when all categories are known."""

    def __init__(self, path: Path, folder: Path, faults: Faults) -> None:
        super().__init__(path, faults)
        self.folder = folder
        self.pictures: dict[int | str, str] = {}
        self.segment_ids = array("q")

    def read_annotation(self, entry: Any) -> None:
        """Appends the segments of an image."""
        match entry:
            case {"image_id": int() | str() as image, "file_name": str(file), "segments_info": list(segments)}:
                self.pictures[image] = file
            case _:
                raise BadEntry("needs image_id, the file_name of a picture, and segments_info, a list")
        for segment in segments:
            if not (isinstance(segment, dict) and type(segment.get("id")) is int and 0 <= segment["id"] < 2**24):
                raise BadEntry("segments_info: a segment has no whole number from 0 to 16777215 as id")
            numbered = segment | {"id": len(self.table) + 1, "image_id": image, "segmentation": None, "keypoints": None}
            super().read_annotation(numbered)
            self.segment_ids.append(segment["id"])

    def panoptic(
        self, images: Path | None, classes: Sequence[str] | None, stuff: Sequence[str] | None
    ) -> PanopticDataset:
        """The data set of all that was read."""
        self._leave_out_without_pictures()
        folder, table = self.join(images), self.table
        names, category_ids, known = self._classes(classes, stuff)
        label_of = {number: label for label, number in enumerate(category_ids)}
        stuff_of = {number: label for label, number in enumerate(known.category_ids)}
        rows, numbers = np.array(table.image_rows, dtype=np.int64), np.array(table.labels, dtype=np.int64)
        ids = np.array(self.segment_ids, dtype=np.int64)
        thing = np.isin(numbers, [n for n, entry in self.categories.items() if entry["isthing"]])
        loose = (rows >= 0) & ~thing
        # Stuff whose class the training set does not have is known to be none of its objects, and no more: void.
        labels = np.array([stuff_of.get(number, -1) for number in numbers[loose].tolist()], dtype=np.int64)
        table.image_rows = array("q", np.where(thing, rows, -1).tolist())
        table.labels = array("q", [label_of.get(number, 0) for number in numbers.tolist()])
        pictures = [self.folder / self.pictures[identity] for identity in table.image_ids]
        return PanopticDataset(
            str(self.path), table, folder, names, category_ids, self.faults.skipped, known, pictures, ids,
            (rows[loose], ids[loose], labels),
        )  # fmt: skip

    def _classes(
        self, classes: Sequence[str] | None, stuff: Sequence[str] | None
    ) -> tuple[tuple[str, ...], tuple[int, ...], Stuff]:
        numbers: dict[bool, dict[str, int]] = {True: {}, False: {}}
        for number, entry in self.categories.items():
            if entry.get("isthing") not in (0, 1):
                raise InputError(f"{self.path}: categories: isthing of {entry['name']!r} is neither 0 nor 1")
            numbers[bool(entry["isthing"])][entry["name"]] = number
        things, loose = numbers[True], numbers[False]
        source, used = str(self.path), self.used_names()
        if classes is None:
            names, category_ids = align_classes(source, things, used, None)
            return names, category_ids, Stuff(tuple(loose), tuple(loose.values()))
        for name in loose:
            if name in classes:
                raise InputError(f"{source}: categories: {name!r} is stuff here and has objects in the training set")
        wanted = tuple(stuff or ())
        listed = things | (loose if wanted else {})
        names, category_ids = align_classes(source, listed, used, (*classes, *wanted))
        count = len(classes)
        return names[:count], category_ids[:count], Stuff(names[count:], category_ids[count:])

    def _leave_out_without_pictures(self) -> None:
        present = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        if not present:
            raise InputError(
                f"{self.path}: there is no folder {self.folder} with its pictures of segments; name it with segments=…"
            )
        for identity in list(self.images):
            file = self.pictures.get(identity)
            if file is None:
                self.bad_images[identity] = f"{self.path}: image {identity!r} has no annotation"
            elif file not in present:
                self.bad_images[identity] = (
                    f"{self.path}: the picture {self.folder / file} (image {identity!r}) is missing"
                )


def segments_of(dataset: Dataset, index: int) -> Segments:
    """The truth of an image as segments: each object, and each class of stuff as one.

    Raises:
        InputError: a data set without stuff, or an object whose mask is not known.
    """
    record, stuff = dataset.record(index), dataset.stuff_map(index)
    owner = np.full(record.size, -1, dtype=np.int32)
    for row, shape in enumerate(record.shapes):
        if shape is None:
            raise InputError(f"{dataset.name}: image {record.id!r}: an object has no mask, so it is no segment")
        patch = patch_code(shape) if isinstance(shape, Rle) else patch_polygons(shape, record.size)
        x1, y1, x2, y2 = patch.box
        owner[y1:y2, x1:x2][patch.pixels] = row
    rest = (owner < 0) & (stuff > 0) & (stuff < VOID)
    present = np.flatnonzero(np.bincount(stuff[rest], minlength=1))
    row_of = np.zeros(VOID, dtype=np.int32)
    row_of[present] = np.arange(len(present)) + len(record)
    owner[rest] = row_of[stuff[rest]]
    labels = np.concatenate([record.labels, len(dataset.classes) - 1 + present])
    crowd = np.concatenate([record.crowd, np.zeros(len(present), dtype=bool)])
    return Segments(torch.from_numpy(owner), torch.from_numpy(labels), torch.ones(len(labels)), torch.from_numpy(crowd))
