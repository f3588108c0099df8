"""LabelMe: a json an image, beside it, with the rectangles, polygons, circles and masks that somebody drew."""

import base64
import io
import json
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from perpixel.data.dataset import Shape, size_fault
from perpixel.data.extras import Extras
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
from perpixel.data.image import SUFFIXES, image_size
from perpixel.data.labels import align_classes
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.data.text import read_text
from perpixel.errors import InputError

_LOOKED_AT = 20
"""Files of a folder that are opened to tell whether it is LabelMe's."""
_FAR = 1e9
"""Pixels: no point of an image lies farther off."""
_READ_OF_IMAGES = frozenset(("version", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"))
_READ_OF_SHAPES = frozenset(("label", "points", "shape_type", "mask", "difficult"))
_OFTEN_EMPTY = frozenset(("flags", "description", "group_id"))
_DEFAULTS: tuple[Any, ...] = (None, "", {}, [])
"""What LabelMe writes where nothing is said."""


def is_labelme(path: Path) -> bool:
    """Whether a folder, or one below it, holds json files of LabelMe."""
    if not path.is_dir():
        return False
    for file in islice(path.rglob("*.json"), _LOOKED_AT):
        try:
            document = json.loads(read_text(file))
        except (InputError, ValueError, RecursionError):
            continue
        if isinstance(document, dict) and {"shapes", "imagePath"} <= document.keys():
            return True
    return False


def read_labelme(
    source: Path,
    images: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    extras: Extras | None = None,
) -> TableDataset:
    """The data set of all LabelMe files in a folder and the folders below it; images are called by the files' names.

    Shapes with one label and one ``group_id`` are parts of one object (`perpixel.data.grouped`). A circle becomes a polygon of 64
    corners. ``difficult``, a field that LabelMe keeps and some of its kin set, marks a crowd. Points and lines bound no area:
    they are bad data here. Classes are the labels that occur, sorted. An image without a file is no part
    of the data set, as nobody has looked at it yet; one whose file has no shapes has no objects.

    Args:
        source: the folder.
        images: the folder of the images; None takes ``imagePath``, which is relative to the file.
        classes: the classes of the training set.
        skip_bad: leave out bad files and shapes and list them.
        extras: collects the fields that are not read.

    Raises:
        InputError: names the file, the shape and the field.
    """
    reader = _Reader(source, images, Faults(skip_bad), extras)
    for file in sorted(source.rglob("*.json")):
        reader.read(file)
    return reader.dataset(classes)


class _Reader:
    def __init__(self, source: Path, images: Path | None, faults: Faults, extras: Extras | None) -> None:
        self.source, self.images, self.faults, self.extras = source, images, faults, extras
        self.table = TableBuilder()
        self.names: list[str] = []
        self.seen: set[Path] = set()

    def read(self, file: Path) -> None:
        """Appends the image of a file and its objects."""
        try:
            document = json.loads(read_text(file))
        except (InputError, ValueError, RecursionError) as error:
            return self.faults.report(
                str(error) if isinstance(error, InputError) else f"{file}: is not valid json ({error})"
            )
        shapes = document.get("shapes") if isinstance(document, dict) else None
        if not isinstance(shapes, list) or not isinstance(document.get("imagePath"), str):
            goes_with = f", with its {len(shapes)} shapes" if isinstance(shapes, list) else ""
            return self.faults.report(
                f"{file}: is no file of LabelMe, which has a list shapes and a name imagePath{goes_with}"
            )
        path = self._image(file, document["imagePath"])
        if path is None:
            place = self.images or file.parent
            return self.faults.report(
                f"{file}: there is no image {document['imagePath']} (imagePath) in {place}, with its {len(shapes)} shapes"
            )
        if path in self.seen:
            return self.faults.report(f"{file}: the image {path} has a file already, with its {len(shapes)} shapes")
        self.seen.add(path)
        try:
            size = _stated_size(document) or image_size(path)
        except InputError as error:
            return self.faults.report(f"{error}, with its {len(shapes)} shapes")
        if fault := size_fault(size):
            return self.faults.report(
                f"{file}: imageWidth x imageHeight {size[1]}x{size[0]} {fault}, with its {len(shapes)} shapes"
            )
        identity = file.relative_to(self.source).with_suffix("").as_posix()
        row = self.table.add_image(identity, str(path), size)
        if self.extras is not None:
            extra = {name: value for name, value in document.items() if name not in _READ_OF_IMAGES}
            extra = {name: value for name, value in extra.items() if name != "flags" or value not in _DEFAULTS}
            self.extras.note_image(identity, extra, _said(document))
        parts = []
        for number, shape in enumerate(shapes, start=1):
            try:
                parts.append(check_part(_part(shape, size), size))
            except BadShape as fault:
                label = f" ({shape.get('label')})" if isinstance(shape, dict) else ""
                self.faults.report(f"{file}: shape {number}{label}: {fault}")
        return add_objects(self.table, row, size, parts, self.names, self.extras)

    def _image(self, file: Path, name: str) -> Path | None:
        """The image of a file: by its imagePath, which may be of Windows, or with the file's own name.

        An imagePath often leads to a folder beside the source; whatever lies farther away is none of the data set's business.
        """
        named = Path(name.replace("\\", "/"))
        place = self.images or file.parent
        candidates = [place / (named.name if self.images else named), place / named.name]
        candidates += [place / f"{file.stem}{suffix}" for suffix in SUFFIXES]
        near = (self.images or self.source.resolve().parent).resolve()
        usable = [path for path in candidates if path.suffix.lower() in SUFFIXES and path.is_file()]
        return next((path for path in usable if path.resolve().is_relative_to(near)), None)

    def dataset(self, classes: Sequence[str] | None) -> TableDataset:
        """The data set of all that was read."""
        source = str(self.source)
        if not self.table.image_ids:
            raise InputError(f"{source}: none of its images can be used")
        numbers = {name: number for number, name in enumerate(sorted(set(self.names)), start=1)}
        names, category_ids = align_classes(source, numbers, numbers, classes)
        label = {name: position for position, name in enumerate(names)}
        for row, name in enumerate(self.names):
            self.table.labels[row] = label[name]
        return TableDataset(source, self.table, Path(), names, category_ids, (), self.faults.skipped)


def _part(shape: Any, size: tuple[int, int]) -> Part:
    if not (isinstance(shape, dict) and isinstance(shape.get("label"), str)):
        raise BadShape("has no label, a text")
    kind, group = shape.get("shape_type") or "polygon", shape.get("group_id")
    box, drawn = _geometry(kind, shape, size)
    extra = {name: value for name, value in shape.items() if name not in _READ_OF_SHAPES}
    extra = {name: value for name, value in extra.items() if name not in _OFTEN_EMPTY or value not in _DEFAULTS}
    group = group if type(group) is int else None
    return Part(shape["label"], box, drawn, group, bool(shape.get("difficult")), extra, tuple(_said(shape)))


def _geometry(kind: str, shape: dict[str, Any], size: tuple[int, int]) -> tuple[Box, Shape]:
    points = shape.get("points")
    if not (isinstance(points, list) and points and all(map(_is_point, points))):
        raise BadShape("points are not pairs of numbers")
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    match kind:
        case "rectangle" if len(points) in (2, 4):
            return (float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))), None
        case "polygon" | "rotation":
            return polygon_part(points)
        case "circle" if len(points) == 2:
            radius = math.dist(points[0], points[1])
            return polygon_part(ellipse_points((xs[0], ys[0]), (radius, radius)))
        case "mask" if len(points) == 2:
            return mask_part(_decoded(shape.get("mask")), round(min(xs)), round(min(ys)), size)
        case "point" | "points" | "line" | "linestrip":
            raise BadShape(f"is a {kind}, which bounds no area")
    raise BadShape(f"shape_type {kind!r} with {len(points)} points is not known here")


def _decoded(text: Any) -> np.ndarray:
    """LabelMe's mask: a picture in base64 that fills the rectangle of the points, both ends included."""
    try:
        with Pillow.open(io.BytesIO(base64.b64decode(text or "", validate=True)), formats=["PNG"]) as picture:
            return np.asarray(picture.convert("L")) > 0
    except (OSError, SyntaxError, TypeError, ValueError, Pillow.DecompressionBombError) as error:
        raise BadShape(f"mask is no PNG picture in base64 ({error})") from error


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(end) in (int, float) and -_FAR < end < _FAR for end in value)
    )


def _stated_size(document: dict[str, Any]) -> tuple[int, int] | None:
    height, width = document.get("imageHeight"), document.get("imageWidth")
    whole = type(height) is int and type(width) is int and height > 0 and width > 0
    return (height, width) if whole else None  # pyright: ignore[reportReturnType]


def _said(entry: dict[str, Any]) -> list[str]:
    return [name for name, value in entry.items() if value not in _DEFAULTS]
