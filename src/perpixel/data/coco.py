"""COCO json: instances, keypoints, crowds; read as a stream, so that a file of 100,000 images stays small in memory."""

import math
from array import array
from collections.abc import Iterator, Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np

from perpixel.config import short
from perpixel.data.dataset import box_fault, size_fault
from perpixel.data.extras import Extras
from perpixel.data.json_stream import members
from perpixel.data.labels import align_classes
from perpixel.data.place import ImageFolder
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.errors import InputError

_NUMBERS = frozenset((int, float))


def read_coco(
    path: Path,
    images: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    extras: Extras | None = None,
) -> TableDataset:
    """The data set that a COCO ground-truth file describes.

    Classes are the file's categories in the order of their numbers, or `classes`. Boxes may reach past the image (they
    are clipped in records, not in the evaluation truth). An absent or empty segmentation means that only the box is known.

    Args:
        path: the json file.
        images: the folder of the images; None looks for it near the file.
        classes: the classes of the training set, to open an evaluation set with the same labels.
        skip_bad: leave out bad images and annotations and list them, instead of ending at the first.
        extras: collects the fields that are not read.

    Raises:
        InputError: names the file, the entry and the field.
    """
    reader = CocoReader(path, Faults(skip_bad))
    for member, items in members(path):
        reader.take(member, items if extras is None else extras.noting_coco(member, items))
    return reader.dataset(images, classes)


class BadEntry(Exception):
    """Why an entry cannot be used."""


class CocoReader:
    """Collects the members of the file in whatever order they come, then joins them."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self.path, self.faults = path, faults
        self.found: set[str] = set()
        self.categories: dict[int, dict[str, Any]] = {}
        self.images: dict[int | str, tuple[str, int, int]] = {}
        self.bad_images: dict[int | str, str] = {}
        self.table = TableBuilder()
        self.object_images: list[int | str] = []
        self.code_sizes: dict[int, list[int]] = {}

    def take(self, member: str, items: Iterator[Any]) -> None:
        """Reads one member of the file; the labels of the table hold category numbers until the file is read."""
        self.found.add(member)
        if member == "categories":
            self._read_categories(items)
        elif member == "images":
            self._read_images(items)
        elif member == "annotations":
            for position, entry in enumerate(items):
                try:
                    self.read_annotation(entry)
                except BadEntry as fault:
                    number = f" (id {entry.get('id')})" if isinstance(entry, dict) else ""
                    self.faults.report(f"{self.path}: annotations[{position}]{number}: {fault}")
        else:
            for _ in items:
                pass

    def dataset(self, images: Path | None, classes: Sequence[str] | None) -> TableDataset:
        """The data set of all that was read."""
        folder, keypoint_names = self.join(images), self._keypoint_names()
        used = self.used_names()
        numbers = {entry["name"]: number for number, entry in self.categories.items()}
        names, category_ids = align_classes(str(self.path), numbers, used, classes)
        position = {number: label for label, number in enumerate(category_ids)}
        self.table.labels = array("q", [position.get(number, 0) for number in self.table.labels])
        return TableDataset(
            str(self.path),
            self.table,
            folder,
            names,
            category_ids,
            keypoint_names,
            self.faults.skipped,
            self._skeleton(len(keypoint_names)),
        )

    def join(self, images: Path | None) -> Path:
        """Joins images, annotations and categories, without what is bad; the folder of the images."""
        for member in ("images", "annotations", "categories"):
            if member not in self.found:
                raise InputError(
                    f"{self.path}: has no {member!r}; COCO ground truth needs images, annotations, categories"
                )
        if not self.images:
            raise InputError(f"{self.path}: images is empty; a data set needs at least one image")
        folder = images or images_folder(self.path, next(iter(self.images.values()))[0])
        self._leave_out_missing(folder)
        rows: dict[int | str, int] = {}
        for identity, (file, height, width) in self.images.items():
            rows[identity] = self.table.add_image(identity, file, (height, width))
        self.table.image_rows = array("q", [rows.get(identity, -1) for identity in self.object_images])
        self._check_objects(len(self._keypoint_names()))
        return folder

    def _read_categories(self, items: Iterator[Any]) -> None:
        for entry in items:
            if not (isinstance(entry, dict) and _whole(entry.get("id")) and isinstance(entry.get("name"), str)):
                raise InputError(f"{self.path}: categories: {short(entry)} needs a whole number as id and a name")
            keypoints = entry.get("keypoints") or []
            if not (isinstance(keypoints, list) and all(isinstance(name, str) for name in keypoints)):
                raise InputError(
                    f"{self.path}: categories: keypoints={short(keypoints)} of {entry['name']!r} are not names"
                )
            if entry["id"] in self.categories:
                raise InputError(f"{self.path}: categories: the id {entry['id']} occurs twice; make each one unique")
            if any(entry["name"] == other["name"] for other in self.categories.values()):
                raise InputError(
                    f"{self.path}: categories: the name {entry['name']!r} occurs twice; make each one unique"
                )
            self.categories[entry["id"]] = entry
        self.categories = dict(sorted(self.categories.items()))

    def _read_images(self, items: Iterator[Any]) -> None:
        for position, entry in enumerate(items):
            where = f"{self.path}: images[{position}]"
            identity = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(identity, int | str):
                self.faults.report(f"{where}: {short(entry)} has no id that is a whole number or text")
                continue
            if identity in self.images or identity in self.bad_images:
                self.faults.report(f"{where}: the id {identity!r} occurs twice; the first image keeps it")
                continue
            match entry:
                case {"file_name": str(file), "height": int(height), "width": int(width)} if height > 0 and width > 0:
                    if fault := size_fault((height, width)):
                        self.bad_images[identity] = f"{where} (id {identity!r}): its size {fault}"
                    else:
                        self.images[identity] = (file, height, width)
                case _:
                    shown = {field: entry.get(field) for field in ("file_name", "height", "width")}
                    self.bad_images[identity] = (
                        f"{where} (id {identity!r}): {short(shown)} are not a name and two whole numbers above 0"
                    )

    def read_annotation(self, entry: Any) -> None:
        """Appends the object of an annotation.

        Raises:
            BadEntry: why it cannot be used.
        """
        if not isinstance(entry, dict):
            raise BadEntry(f"{short(entry)} is not an object with image_id, category_id and bbox")
        for field in ("id", "image_id", "category_id", "bbox"):
            if field not in entry:
                raise BadEntry(f"has no {field}")
        number, category, box = entry["id"], entry["category_id"], entry["bbox"]
        if not (_whole(number) and _whole(category)):
            raise BadEntry(f"id={short(number)}, category_id={short(category)} are not whole numbers")
        if not (_whole(entry["image_id"]) or isinstance(entry["image_id"], str)):
            raise BadEntry(f"image_id={short(entry['image_id'])} is neither a whole number nor text")
        if not (isinstance(box, list) and len(box) == 4 and _NUMBERS.issuperset(map(type, box))):
            raise BadEntry(f"bbox={short(box)} is not [x, y, width, height] in numbers")
        try:
            x_y_width_height = array("d", box)
        except OverflowError as error:
            raise BadEntry(f"bbox={short(box)} has a number that is too large") from error
        area = entry["area"] if _number(entry.get("area")) else math.nan
        polygons, code, code_size = _segmentation(entry.get("segmentation"))
        keypoints = _keypoints(entry.get("keypoints"))
        if code_size is not None:
            self.code_sizes[len(self.table)] = code_size
        self.object_images.append(entry["image_id"])
        self.table.add_object(
            -1,
            number,
            category,
            x_y_width_height,
            area=area,
            crowd=bool(entry.get("iscrowd")),
            polygons=polygons,
            code=code,
            keypoints=keypoints,
        )

    def _leave_out_missing(self, folder: Path) -> None:
        """Images that are not usable go, and each note says how many annotations go with it."""
        inside = ImageFolder(folder)
        for identity, (file, _, _) in self.images.items():
            if fault := inside.fault(file):
                self.bad_images[identity] = f"{self.path}: the image {folder / file} (id {identity}) {fault}"
        counts: dict[int | str, int] = dict.fromkeys(self.bad_images, 0)
        if counts:
            for identity in self.object_images:
                if identity in counts:
                    counts[identity] += 1
        for identity, fault in self.bad_images.items():
            self.faults.report(f"{fault}, with its {counts[identity]} annotations")
            self.images.pop(identity, None)
        if not self.images:
            raise InputError(f"{self.path}: none of its images can be used; name their folder with images=…")

    def _check_objects(self, keypoints: int) -> None:
        """Objects that cannot be used get no image."""
        table = self.table
        rows = np.array(table.image_rows, dtype=np.int64)
        box = np.array(table.boxes, dtype=np.float64).reshape(-1, 4)
        sizes = np.array(table.image_sizes, dtype=np.int64).reshape(-1, 2)[rows]
        with np.errstate(invalid="ignore"):
            good = (box[:, 2:] > 0).all(1) & np.isfinite(box).all(1)
            good &= (box[:, :2] < sizes[:, ::-1]).all(1) & (box[:, :2] + box[:, 2:] > 0).all(1)
        good &= rows >= 0
        good &= np.isin(np.array(table.labels), list(self.categories))
        numbers = np.array(table.annotation_ids, dtype=np.int64)
        first = np.zeros(len(numbers), dtype=bool)
        first[np.unique(numbers, return_index=True)[1]] = True
        lengths = np.diff(np.array(table.keypoint_ends))
        good &= first & ((lengths == 0) | (lengths == 3 * keypoints))
        for row, size in self.code_sizes.items():
            good[row] &= size == sizes[row].tolist()
        for row in np.flatnonzero(~good).tolist():
            table.image_rows[row] = -1
            identity = self.object_images[row]
            if identity in self.bad_images:
                continue  # counted with its image
            where = f"{self.path}: annotation {numbers[row]} of image {identity!r}"
            x, y, width, height = box[row].tolist()
            if identity not in self.images:
                self.faults.report(f"{where}: image_id names no image")
            elif table.labels[row] not in self.categories:
                self.faults.report(f"{where}: category_id {table.labels[row]} names no category")
            elif fault := box_fault((x, y, x + width, y + height), tuple(sizes[row].tolist())):
                self.faults.report(f"{where}: bbox [{x:g}, {y:g}, {width:g}, {height:g}] {fault}")
            elif not first[row]:
                self.faults.report(f"{where}: the id occurs twice; the first annotation keeps it")
            elif row in self.code_sizes and self.code_sizes[row] != sizes[row].tolist():
                self.faults.report(
                    f"{where}: segmentation size {self.code_sizes[row]} is not the image's {sizes[row].tolist()}"
                )
            else:
                self.faults.report(
                    f"{where}: keypoints has {lengths[row]} numbers, not 3 for each of {keypoints} names"
                )

    def used_names(self) -> set[str]:
        """Names of the categories that have annotations; the table's labels still hold category numbers."""
        rows, numbers = np.array(self.table.image_rows, dtype=np.int64), np.array(self.table.labels, dtype=np.int64)
        return {self.categories[number]["name"] for number in np.unique(numbers[rows >= 0]).tolist()}

    def _keypoint_names(self) -> tuple[str, ...]:
        sets = {tuple(entry["keypoints"]) for entry in self.categories.values() if entry.get("keypoints")}
        if len(sets) > 1:
            raise InputError(f"{self.path}: categories: their keypoints differ; all categories need the same names")
        return sets.pop() if sets else ()

    def _skeleton(self, keypoints: int) -> tuple[tuple[int, int], ...]:
        """The pairs of the first category that has any, counted from 0 as elsewhere here."""
        for entry in self.categories.values():
            limbs = entry.get("skeleton")
            if not (limbs and entry.get("keypoints")):
                continue
            if not (isinstance(limbs, list) and all(_limb(limb, keypoints) for limb in limbs)):
                raise InputError(
                    f"{self.path}: categories: skeleton={short(limbs)} of {entry['name']!r} are not pairs of numbers "
                    f"from 1 to {keypoints}, the number of its keypoints"
                )
            return tuple((first - 1, second - 1) for first, second in limbs)
        return ()


def _limb(value: Any, keypoints: int) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_whole(v) and 1 <= v <= keypoints for v in value)


def _segmentation(value: Any) -> tuple[list[array], bytes, list[int] | None]:
    """Polygons, or a compressed code with its size; nothing where only a box is known."""
    if not value:
        return [], b"", None
    if isinstance(value, list):
        try:
            polygons = [array("d", polygon) for polygon in value]
        except (TypeError, OverflowError) as error:
            raise BadEntry(f"segmentation: a polygon is not a list of numbers ({short(value)})") from error
        for polygon in polygons:
            if len(polygon) < 6 or len(polygon) % 2 or not math.isfinite(sum(polygon)):
                raise BadEntry(f"segmentation: a polygon is not 3 or more points x, y ({short(polygon.tolist())})")
        return polygons, b"", None
    size, counts = (value.get("size"), value.get("counts")) if isinstance(value, dict) else (None, None)
    if not (isinstance(size, list) and len(size) == 2 and all(_whole(side) and side > 0 for side in size)):
        raise BadEntry(f"segmentation: {short(value)} is neither polygons nor a run-length code with size and counts")
    if isinstance(counts, str):
        return [], counts.encode("utf-8"), size
    if not (isinstance(counts, list) and all(_whole(run) and run >= 0 for run in counts)):
        raise BadEntry(f"segmentation: counts={short(counts)} are not runs")
    if sum(counts) != size[0] * size[1]:
        raise BadEntry(f"segmentation: the runs cover {sum(counts)} pixels, not the {size[0] * size[1]} of size {size}")
    return [], hotcoco.mask.frPyObjects({"size": size, "counts": counts}, *size)["counts"], size


def _keypoints(values: Any) -> array:
    """Keypoints moved from COCO's pixel indices to pixel centres; those not labelled stay 0."""
    if not values:
        return array("d")
    try:
        keypoints = array("d", values)
    except (TypeError, OverflowError) as error:
        raise BadEntry(f"keypoints={short(values)} is not a list of numbers") from error
    if not math.isfinite(sum(keypoints)):
        raise BadEntry("keypoints has a value that is not a number")
    for start in range(0, len(keypoints) - 2, 3):
        if keypoints[start + 2] > 0:
            keypoints[start] += 0.5
            keypoints[start + 1] += 0.5
    return keypoints


def images_folder(path: Path, file: str) -> Path:
    """Where the images of an annotation file usually lie: the first folder that holds `file`."""
    split = path.stem.rpartition("_")[2]
    near, above = path.parent, path.parent.parent
    places = [near, near / "images", near / split, near / "images" / split]
    places += [above / "images" / split, above / "images", above / split, above]
    for folder in places:
        if isfile(folder / file):
            return folder
    raise InputError(
        f"{path}: its first image {file} is not in {', '.join(map(str, places))}; name its folder with images=…"
    )


def _whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in _NUMBERS and -1e300 < value < 1e300
