"""CVAT for images 1.1: one xml of all images with their boxes, polygons, ellipses and masks."""

import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from perpixel.data.coco import images_folder
from perpixel.data.dataset import Shape, size_fault
from perpixel.data.extras import Extras, element_value, from_text
from perpixel.data.grouped import (
    BadShape,
    Box,
    Part,
    add_objects,
    check_part,
    ellipse_points,
    mask_part,
    polygon_part,
)
from perpixel.data.labels import align_classes
from perpixel.data.place import ImageFolder
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.errors import InputError

CROWD = "is_crowd"
"""The attribute that marks a crowd, as CVAT's own COCO files name it."""
DEFAULTS = {"occluded": "0"}
"""What every shape says, also where nobody said anything."""
_NO_XML = (ElementTree.ParseError, LookupError, ValueError, OSError)
"""What a file that is no xml is met with: also an encoding that nobody knows."""
_GEOMETRY = {
    "box": ("xtl", "ytl", "xbr", "ybr", "rotation"),
    "polygon": ("points",),
    "ellipse": ("cx", "cy", "rx", "ry", "rotation"),
    "mask": ("rle", "left", "top", "width", "height"),
}
_BOUND_NOTHING = ("polyline", "points", "cuboid", "skeleton")


def cvat_file(source: Path) -> Path | None:
    """The xml of CVAT that a source names: itself, or annotations.xml in a folder; None where there is none."""
    path = source / "annotations.xml" if source.is_dir() else source
    if path.suffix.lower() != ".xml" or not path.is_file():
        return None
    try:
        for _, element in ElementTree.iterparse(path, events=("start",)):
            return path if element.tag == "annotations" else None
    except _NO_XML as error:
        raise InputError(f"{path}: is not valid xml ({error})") from error
    return None


def read_cvat(
    path: Path,
    images: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    extras: Extras | None = None,
) -> TableDataset:
    """The data set of a file that CVAT exported as "CVAT for images 1.1".

    Shapes with one label and one ``group_id`` are parts of one object (`perpixel.data.grouped`). A turned box and an ellipse
    become polygons. The attribute ``is_crowd`` marks a crowd. Points, lines, cuboids and skeletons are bad data here.
    Classes are the labels of the task in its order, then others that occur.

    Args:
        path: the xml.
        images: the folder of the images; None looks for it near the file.
        classes: the classes of the training set.
        skip_bad: leave out bad images and shapes and list them.
        extras: collects what is not read.

    Raises:
        InputError: names the file, the image and the shape.
    """
    reader = _Reader(path, Faults(skip_bad), extras)
    try:
        for _, element in ElementTree.iterparse(path, events=("end",)):
            reader.take(element)
    except _NO_XML as error:
        raise InputError(f"{path}: is not valid xml ({error})") from error
    return reader.dataset(images, classes)


class _Reader:
    def __init__(self, path: Path, faults: Faults, extras: Extras | None) -> None:
        self.path, self.faults, self.extras = path, faults, extras
        self.labels: list[str] = []
        self.images: dict[str, tuple[tuple[int, int], list[Part]]] = {}

    def take(self, element: ElementTree.Element) -> None:
        """Reads an element of the file that is complete."""
        if element.tag == "image":
            self._read_image(element)
            element.clear()
        elif element.tag == "track":
            raise InputError(
                f"{self.path}: holds tracks of a video; export the task again as 'CVAT for images 1.1', which has frames"
            )
        elif element.tag == "meta":
            names = [label.findtext("name") or "" for label in element.iter("label")]
            self.labels = [name for name in dict.fromkeys(names) if name]
            if self.extras is not None:
                self.extras.whole["meta"] = element_value(element)

    def _read_image(self, element: ElementTree.Element) -> None:
        name = element.get("name") or ""
        where = f"{self.path}: image {name or element.get('id')!r}"
        sides = [element.get(side) or "" for side in ("height", "width")]
        shapes = [shape for shape in element if shape.tag != "tag"]
        goes_with = f", with its {len(shapes)} shapes"
        if not name or not all(map(_is_whole, sides)):
            return self.faults.report(f"{where}: needs a name, and width and height above 0{goes_with}")
        if fault := size_fault((int(sides[0]), int(sides[1]))):
            return self.faults.report(f"{where}: width x height {sides[1]}x{sides[0]} {fault}{goes_with}")
        if name in self.images:
            return self.faults.report(f"{where}: the name occurs twice; the first image keeps it{goes_with}")
        size, parts = (int(sides[0]), int(sides[1])), []
        for number, shape in enumerate(shapes, start=1):
            try:
                parts.append(check_part(_part(shape, size), size))
            except BadShape as fault:
                self.faults.report(f"{where}: shape {number} ({shape.get('label')}): {fault}")
        self.images[name] = size, parts
        if self.extras is not None:
            known = ("id", "name", "width", "height")
            extra: dict[str, Any] = {key: from_text(value) for key, value in element.attrib.items() if key not in known}
            tags = [tag.get("label") for tag in element.findall("tag")]
            self.extras.note_image(
                name, extra | ({"tags": tags} if tags else {}), [*element.attrib, *("tags",) * bool(tags)]
            )
        return None

    def dataset(self, images: Path | None, classes: Sequence[str] | None) -> TableDataset:
        """The data set of all that was read."""
        if not self.images:
            raise InputError(f"{self.path}: has no image that can be used")
        folder = images or images_folder(self.path, next(iter(self.images)))
        inside, table, names = ImageFolder(folder), TableBuilder(), []
        for name, (size, parts) in self.images.items():
            if fault := inside.fault(name):
                self.faults.report(f"{self.path}: the image {folder / name} {fault}, with its {len(parts)} shapes")
                continue
            add_objects(table, table.add_image(name, name, size), size, parts, names, self.extras)
        if not table.image_ids:
            raise InputError(f"{self.path}: none of its images can be used; name their folder with images=…")
        listed = [*self.labels, *sorted(set(names) - set(self.labels))]
        numbers = {name: number for number, name in enumerate(listed, start=1)}
        used, category_ids = align_classes(str(self.path), numbers, set(names), classes)
        label = {name: position for position, name in enumerate(used)}
        table.labels = array("q", [label[name] for name in names])
        return TableDataset(str(self.path), table, folder, used, category_ids, (), self.faults.skipped)


def _part(shape: ElementTree.Element, size: tuple[int, int]) -> Part:
    if shape.tag in _BOUND_NOTHING:
        raise BadShape(f"is of kind {shape.tag}, of which no box is known")
    if shape.tag not in _GEOMETRY:
        raise BadShape(f"is of kind {shape.tag}, which is not known here")
    box, drawn = _geometry(shape, size)
    group = shape.get("group_id") or "0"
    read = {"label", *_GEOMETRY[shape.tag]}
    extra = {
        name: from_text(value)
        for name, value in shape.attrib.items()
        if name not in read and value != DEFAULTS.get(name) and (name, value) != ("group_id", "0")
    }
    for attribute in shape.findall("attribute"):
        extra[attribute.get("name") or ""] = from_text(attribute.text)
    fields = (*shape.attrib, *extra)
    crowd = bool(extra.pop(CROWD, False))
    return Part(
        shape.get("label") or "",
        box,
        drawn,
        int(group) if _is_whole(group) else None,
        crowd,
        extra,
        fields,
    )


def _geometry(shape: ElementTree.Element, size: tuple[int, int]) -> tuple[Box, Shape]:
    if shape.tag == "polygon":
        return polygon_part([_numbers(point, "points") for point in (shape.get("points") or "").split(";")])
    if shape.tag == "mask":
        runs = [int(run) for run in _numbers(shape.get("rle") or "", "rle")]
        left, top, width, height = (int(_number(shape, side)) for side in ("left", "top", "width", "height"))
        if min(runs) < 0 or not (0 < width <= size[1] and 0 < height <= size[0]) or sum(runs) != width * height:
            raise BadShape(f"the runs of rle cover {sum(runs)} pixels, not the {width}x{height} of its window")
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        return mask_part(inside, left, top, size)
    turn = _number(shape, "rotation") if shape.get("rotation") else 0.0
    if shape.tag == "ellipse":
        cx, cy, rx, ry = (_number(shape, name) for name in ("cx", "cy", "rx", "ry"))
        return polygon_part(ellipse_points((cx, cy), (rx, ry), turn))
    x1, y1, x2, y2 = (_number(shape, name) for name in ("xtl", "ytl", "xbr", "ybr"))
    if not turn:
        return (x1, y1, x2, y2), None
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    corners = [(x1 - cx, y1 - cy), (x2 - cx, y1 - cy), (x2 - cx, y2 - cy), (x1 - cx, y2 - cy)]
    return polygon_part([(cx + cos * u - sin * v, cy + sin * u + cos * v) for u, v in corners])


def _is_whole(text: str) -> bool:
    """Whether it is a whole number above 0, of as many digits as any is."""
    return text.isdecimal() and len(text) < 19 and int(text) > 0


def _number(shape: ElementTree.Element, name: str) -> float:
    return _numbers(shape.get(name) or "", name)[0]


def _numbers(text: str, name: str) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        raise BadShape(f"{name}={text[:40]!r} are not numbers") from None
    if not np.isfinite(values).all():
        raise BadShape(f"{name}={text[:40]!r} are not finite numbers")
    return values
