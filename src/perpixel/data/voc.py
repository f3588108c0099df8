"""Pascal VOC: an xml file an image, and for some images a picture of their objects' masks."""

import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from perpixel.data.dataset import box_fault, size_fault
from perpixel.data.extras import Extras, element_value, from_text
from perpixel.data.image import SUFFIXES, UNREADABLE, image_size, opened
from perpixel.data.labels import align_classes
from perpixel.data.masks import encode
from perpixel.data.place import ImageFolder, climbs
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.data.text import read_text
from perpixel.errors import InputError

_ANNOTATIONS, _IMAGES = ("Annotations", "annotations"), ("JPEGImages", "images")
_MASKS = "SegmentationObject"
_BORDER = 255
"""VOC's mark around objects where it is not said whose a pixel is."""
_READ_OF_IMAGES = frozenset(("folder", "filename", "size", "segmented", "object", "attributes"))
_READ_OF_OBJECTS = frozenset(("name", "difficult", "bndbox", "attributes"))
_LEAST_OVERLAP = 0.3
"""Between a box and the extent of a mask that are taken for the same object; masks are smaller by VOC's border."""


def voc_root(source: Path) -> Path | None:
    """The folder that holds the annotations folder with xml files: `source` or, for a split file, one above it."""
    places = [source] if source.is_dir() else list(source.parents)[:3] if source.suffix == ".txt" else []
    for place in places:
        folder = _first_folder(place, _ANNOTATIONS)
        if folder is not None and next(folder.glob("*.xml"), None) is not None:
            return place
    return None


def read_voc(
    source: Path,
    images: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    extras: Extras | None = None,
) -> TableDataset:
    """The data set of a VOC folder, or of the names in one of its split files.

    VOC counts pixels from 1 and includes the last one, so a box covers [xmin - 1, xmax] in continuous coordinates; a box
    whose two ends are the same number is taken for a slip of the annotator, not for a pixel. Objects marked difficult
    become crowds: neither truth nor background. Classes are the names that occur, sorted. Masks come from
    SegmentationObject/, where it has a picture of the image: each goes to the box that its extent overlaps best.

    Args:
        source: the folder, or a text file whose lines begin with the names of images.
        images: the folder of the images; None means JPEGImages/ or images/ beside the annotations.
        classes: the classes of the training set.
        skip_bad: leave out bad images and objects and list them.
        extras: collects the elements that are not read.

    Raises:
        InputError: names the xml file, the object and the field.
    """
    root = voc_root(source)
    annotations = None if root is None else _first_folder(root, _ANNOTATIONS)
    if root is None or annotations is None:
        raise InputError(f"{source}: there is no folder Annotations with xml files here or above")
    folder = images or _first_folder(root, _IMAGES)
    if folder is None:
        raise InputError(f"{root}: there is no folder JPEGImages or images; name it with images=…")
    reader = _Reader(annotations, folder, root / _MASKS, Faults(skip_bad), extras)
    for stem in _stems(source, annotations):
        reader.read(stem)
    return reader.dataset(str(source), classes)


def _stems(source: Path, annotations: Path) -> list[str]:
    if source.is_dir():
        return sorted(path.stem for path in annotations.glob("*.xml"))
    stems = [line.split()[0] for line in read_text(source).splitlines() if line.strip()]
    if not stems:
        raise InputError(f"{source}: names no image; a split file holds a name on each line")
    return stems


class _BadObject(Exception):
    """Why an object cannot be used."""


class _Reader:
    def __init__(
        self, annotations: Path, folder: Path, masks: Path, faults: Faults, extras: Extras | None = None
    ) -> None:
        self.annotations, self.folder, self.masks, self.faults = annotations, folder, masks, faults
        self.extras = extras
        self.images = ImageFolder(folder)
        self.table = TableBuilder()
        self.names: list[str] = []
        self.files = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SUFFIXES:
                self.files.setdefault(path.stem, path.name)
        self.seen: set[str] = set()

    def read(self, stem: str) -> None:
        path = self.annotations / f"{stem}.xml"
        if stem in self.seen:
            return self.faults.report(f"{path}: the image is listed twice")
        self.seen.add(stem)
        if climbs(stem):
            return self.faults.report(f"{path}: lies outside {self.annotations}, and the split names it")
        try:
            root = ElementTree.parse(path).getroot()
        except (FileNotFoundError, NotADirectoryError):
            return self.faults.report(f"{path}: there is no such annotation file, but the split names it")
        except (ElementTree.ParseError, LookupError, ValueError, OSError) as error:  # also an unknown encoding
            return self.faults.report(f"{path}: is not valid xml ({error})")
        objects = root.findall("object")
        file = self.files.get(stem) or self._named_file(root)
        if file is None:
            return self.faults.report(
                f"{path}: there is no image {stem} in {self.folder}, with its {len(objects)} objects left out"
            )
        if fault := self.images.fault(file):
            return self.faults.report(f"{path}: the image {file} {fault}, with its {len(objects)} objects left out")
        try:
            size = _stated_size(root) or image_size(self.folder / file)
            if fault := size_fault(size):
                raise InputError(f"{path}: size {size[1]}x{size[0]} {fault}")
        except InputError as error:
            return self.faults.report(f"{error}, with its {len(objects)} objects left out")
        row = self.table.add_image(stem, file, size)
        if self.extras is not None:
            self.extras.note_image(stem, _extra(root, _READ_OF_IMAGES), [child.tag for child in root])
        found, entries = [], []
        for number, entry in enumerate(objects, start=1):
            name = (entry.findtext("name") or "").strip()
            try:
                found.append((name, _box(name, entry, size), (entry.findtext("difficult") or "").strip() == "1"))
                entries.append(entry)
            except _BadObject as fault:
                self.faults.report(f"{path}: object {number} ({entry.findtext('name')}): {fault}")
        codes: list[bytes] = [b""] * len(found)
        try:
            codes = mask_codes(self.masks / f"{stem}.png", size, [box for _, box, _ in found])
        except InputError as error:
            self.faults.report(f"{error}; the {len(found)} masks of the image are left out")
        for (name, box, difficult), code, entry in zip(found, codes, entries, strict=True):
            number = len(self.table) + 1
            self.table.add_object(row, number, len(self.names), box, crowd=difficult, code=code)
            if self.extras is not None:
                self.extras.note_object(number, _extra(entry, _READ_OF_OBJECTS), [child.tag for child in entry])
            self.names.append(name)
        return None

    def _named_file(self, root: ElementTree.Element) -> str | None:
        name = (root.findtext("filename") or "").strip()
        return name if name and self.images.fault(name) is None else None

    def dataset(self, source: str, classes: Sequence[str] | None) -> TableDataset:
        if not self.table.image_ids:
            raise InputError(f"{source}: none of its images can be used")
        numbers = {name: number for number, name in enumerate(sorted(set(self.names)), start=1)}
        names, category_ids = align_classes(source, numbers, numbers, classes)
        label = {name: position for position, name in enumerate(names)}
        for row, name in enumerate(self.names):
            self.table.labels[row] = label[name]
        return TableDataset(source, self.table, self.folder, names, category_ids, (), self.faults.skipped)


def _extra(entry: ElementTree.Element, read: frozenset[str]) -> dict[str, Any]:
    """The elements that are not read, and the attributes that CVAT and its like write as pairs of name and value."""
    extra = element_value(entry) if len(entry) else {}
    extra = {name: value for name, value in extra.items() if name not in read}
    for attribute in entry.findall("attributes/attribute"):
        extra[attribute.findtext("name") or ""] = from_text(attribute.findtext("value"))
    return extra


def _box(name: str, entry: ElementTree.Element, size: tuple[int, int]) -> array:
    """x, y, width, height of an object."""
    if not name:
        raise _BadObject("has no name")
    ends = []
    for field in ("xmin", "ymin", "xmax", "ymax"):
        text = entry.findtext(f"bndbox/{field}")
        try:
            ends.append(float(text or ""))
        except ValueError:
            raise _BadObject(f"bndbox {field}={text!r} is not a number") from None
    x1, y1, x2, y2 = ends
    shown = f"bndbox xmin={x1:g} ymin={y1:g} xmax={x2:g} ymax={y2:g}"
    if math.isfinite(sum(ends)) and (x2 <= x1 or y2 <= y1):
        raise _BadObject(f"{shown} has no {'width' if x2 <= x1 else 'height'}")
    fault = box_fault((x1 - 1, y1 - 1, x2, y2), size)
    if fault:
        raise _BadObject(f"{shown} {fault}")
    return array("d", (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1))


def mask_codes(path: Path, size: tuple[int, int], boxes: Sequence[Sequence[float]]) -> list[bytes]:
    """The run-length code of each box's mask; empty where none is drawn.

    Args:
        path: a palette picture whose value is the object's number, 0 for background, 255 for the border. It may be absent.
        size: (height, width) of the image.
        boxes: x, y, width, height of its objects.

    Raises:
        InputError: it is no such picture.
    """
    codes = [b""] * len(boxes)
    if not path.is_file():
        return codes
    numbers = _numbers(path, size)
    pairs = []
    for number in np.setdiff1d(numbers, (0, _BORDER)).tolist():
        rows, columns = np.flatnonzero((numbers == number).any(1)), np.flatnonzero((numbers == number).any(0))
        x1, y1, x2, y2 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        for position, (x, y, width, height) in enumerate(boxes):
            across, down = min(x2, x + width) - max(x1, x), min(y2, y + height) - max(y1, y)
            both = max(across, 0) * max(down, 0)
            overlap = both / ((x2 - x1) * (y2 - y1) + width * height - both)
            if overlap >= _LEAST_OVERLAP:
                pairs.append((-overlap, number, position))
    taken: set[int] = set()
    for _, number, position in sorted(pairs):
        if number not in taken and not codes[position]:
            taken.add(number)
            codes[position] = encode(numbers == number).counts
    return codes


def _numbers(path: Path, size: tuple[int, int]) -> UInt8[ndarray, "h w"]:
    try:
        with opened(path) as picture:
            mode, numbers = picture.mode, np.asarray(picture)
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as a picture ({error})") from error
    if mode not in ("P", "L"):
        raise InputError(f"{path}: is of mode {mode}, not a palette picture whose values number the objects")
    if numbers.shape != size:
        raise InputError(f"{path}: has {numbers.shape[1]}x{numbers.shape[0]} pixels, its image {size[1]}x{size[0]}")
    return numbers


def _stated_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """(height, width) of the xml; None where it is absent or zero, as some tools write it."""
    values = [root.findtext(f"size/{side}") or "" for side in ("height", "width")]
    if not all(value.strip().isdecimal() and len(value) < 10 and int(value) > 0 for value in values):
        return None
    return int(values[0]), int(values[1])


def _first_folder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)
