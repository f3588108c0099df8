"""YOLO: a text file of normalised boxes or polygons an image, and a data.yaml with the names."""

import math
from array import array
from collections.abc import Iterable, Sequence
from os.path import exists, isdir, isfile
from pathlib import Path
from typing import Any

from perpixel.config import short
from perpixel.data.dataset import box_fault
from perpixel.data.extras import Extras
from perpixel.data.image import SUFFIXES, image_size
from perpixel.data.labels import align_classes
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.data.text import read_text, read_yaml
from perpixel.errors import InputError

_READ = frozenset(("names", "nc", "path", "train", "val", "test", "kpt_shape", "kpt_names", "flip_idx"))

_MOST_KEYPOINTS = 1000


def read_yolo(
    source: Path,
    split: str | None,
    images: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    extras: Extras | None = None,
) -> TableDataset:
    """The data set of one split of a data.yaml, or of a folder with images/ and labels/.

    A line is ``class cx cy w h`` in shares of the image, ``class x y x y x y ...`` (a polygon), or a box followed by the
    keypoints that ``kpt_shape`` announces; ``kpt_names`` names them, ``flip_idx`` says what each becomes in a mirror. An image
    without a label file has no objects.
    Images are called by their file names without ending, or by their paths where such names repeat.

    Args:
        source: the data.yaml, or the folder; the folder's names stand in its data.yaml or classes.txt.
        split: the yaml's split: train, val or test; None for a folder.
        images: the folder of the images; None means what the yaml says, or images/.
        classes: the classes of the training set.
        skip_bad: leave out bad images and lines and list them.
        extras: collects the settings that are not read; lines of objects hold nothing else.

    Raises:
        InputError: names the file, the line and the field.
    """
    settings_file = source if split is not None else _folder_settings(source)
    settings = _settings(settings_file)
    if extras is not None:
        extras.whole |= {name: value for name, value in settings.items() if name not in _READ}
    if split is None:
        files = _image_files(images or source / "images")
    elif images is not None:
        files = _image_files(images)
    else:
        files = _split_files(settings_file, settings, split)
    if not files:
        raise InputError(f"{source}: there is no image in {images or split or source / 'images'}")
    reader = _Reader(str(source), _names(settings_file, settings), _keypoint_layout(settings_file, settings), skip_bad)
    for file in files:
        reader.read(file)
    name = str(source) if split is None else f"{source}:{split}"
    dataset = reader.dataset(name, _keypoint_names(settings, reader.keypoints), classes)
    if reader.keypoints and settings.get("flip_idx"):
        dataset.flip_pairs = _flip_pairs(settings_file, settings["flip_idx"], reader.keypoints)
    return dataset


class _Reader:
    def __init__(self, source: str, names: dict[int, str], layout: tuple[int, int], skip_bad: bool) -> None:
        self.source, self.names = source, names
        self.keypoints, self.dimensions = layout
        self.faults = Faults(skip_bad)
        self.table = TableBuilder()
        self.seen: set[Path] = set()

    def read(self, file: Path) -> None:
        if file in self.seen:
            return self.faults.report(f"{file}: the image is listed twice")
        self.seen.add(file)
        labels = label_file(file)
        lines: list[str] = []
        try:
            lines = read_text(labels).splitlines() if isfile(labels) else []
            size = image_size(file)
        except InputError as error:
            return self.faults.report(f"{error}, with its {sum(map(bool, map(str.strip, lines)))} objects left out")
        row = self.table.add_image(file.stem, str(file), size)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                fault = self._object(row, line.split(), size)
                if fault:
                    self.faults.report(f"{labels}: line {number}: {fault}")
        return None

    def _object(self, row: int, words: list[str], size: tuple[int, int]) -> str | None:
        try:
            values = [float(word) for word in words]
        except ValueError:
            return f"{' '.join(words)[:60]!r} is not a row of numbers"
        if not math.isfinite(sum(values)):
            return "has a value that is not a number"
        category, rest = int(values[0]), values[1:]
        if category != values[0] or category not in self.names:
            return f"class {words[0]} is not among the {len(self.names)} names"
        height, width = size
        keypoints: list[float] = []
        if len(rest) == 4 + self.keypoints * self.dimensions:
            cx, cy, w, h = rest[:4]
            box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
            polygons = []
            keypoints = self._points(rest[4:], size)
        elif len(rest) >= 6 and len(rest) % 2 == 0 and not self.keypoints:
            flat = [value * (width, height)[place % 2] for place, value in enumerate(rest)]
            left, top = min(flat[::2]), min(flat[1::2])
            box = [left, top, max(flat[::2]) - left, max(flat[1::2]) - top]
            polygons = [array("d", flat)]
        else:
            wanted = (
                f"{4 + self.keypoints * self.dimensions} (box and keypoints)"
                if self.keypoints
                else "4 (a box) or 6 and more"
            )
            return f"has {len(rest)} numbers after the class, not {wanted}"
        fault = box_fault((box[0], box[1], box[0] + box[2], box[1] + box[3]), size)
        if fault:
            return f"the box {fault}"
        self.table.add_object(
            row, len(self.table) + 1, category, array("d", box), polygons=polygons, keypoints=keypoints
        )
        return None

    def _points(self, values: list[float], size: tuple[int, int]) -> list[float]:
        points: list[float] = []
        for start in range(0, len(values), self.dimensions or 1):
            x, y = values[start] * size[1], values[start + 1] * size[0]
            seen = values[start + 2] if self.dimensions == 3 else 2.0 * (x > 0 or y > 0)
            points += [x, y, seen] if seen > 0 else [0.0, 0.0, 0.0]
        return points

    def dataset(self, source: str, keypoint_names: tuple[str, ...], classes: Sequence[str] | None) -> TableDataset:
        if not self.table.image_ids:
            raise InputError(f"{source}: none of its images can be used")
        if len(set(self.table.image_ids)) < len(self.table.image_ids):
            self.table.image_ids = list(self.table.image_files)
        used = {self.names[number] for number in set(self.table.labels)}
        numbers = {name: number for number, name in self.names.items()}
        names, category_ids = align_classes(source, numbers, used, classes)
        label = {number: position for position, number in enumerate(category_ids)}
        self.table.labels = array("q", [label[number] for number in self.table.labels])
        return TableDataset(source, self.table, Path(), names, category_ids, keypoint_names, self.faults.skipped)


def label_file(image: Path) -> Path:
    """The label file of an image: the last folder named images on its path becomes labels."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _folder_settings(folder: Path) -> Path:
    for name in ("data.yaml", "data.yml", "dataset.yaml", "classes.txt"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder}: the class names are missing; put them into classes.txt, one a line, or into a data.yaml"
    )


def _settings(path: Path) -> dict[str, Any]:
    values = {"names": read_text(path).split("\n")} if path.suffix == ".txt" else read_yaml(path)
    if not values.get("names"):
        raise InputError(f"{path}: has no names; a YOLO data.yaml lists its classes under names")
    return values


def _names(path: Path, settings: dict[str, Any]) -> dict[int, str]:
    names = settings["names"]
    if isinstance(names, list):
        names = {number: name for number, name in enumerate(names) if str(name).strip()}
    if not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
        raise InputError(f"{path}: names={short(names)} is neither a list nor number: name")
    found = {number: str(name).strip() for number, name in sorted(names.items())}
    if len(set(found.values())) < len(found):
        raise InputError(f"{path}: names holds a class twice; make each name unique")
    return found


def _keypoint_layout(path: Path, settings: dict[str, Any]) -> tuple[int, int]:
    """(keypoints an object, numbers a keypoint)."""
    match settings.get("kpt_shape"):
        case None:
            return 0, 0
        case [int(count), 2 | 3 as dimensions] if 0 < count <= _MOST_KEYPOINTS:
            return count, dimensions
        case other:
            raise InputError(f"{path}: kpt_shape={short(other)} is not [keypoints, at most {_MOST_KEYPOINTS}, 2 or 3]")


def _keypoint_names(settings: dict[str, Any], count: int) -> tuple[str, ...]:
    """The yaml's names of keypoints, or their numbers where it names none."""
    named = settings.get("kpt_names")
    if isinstance(named, dict):
        named = next(iter(named.values()), None)
    if isinstance(named, list) and len(named) == count:
        return tuple(map(str, named))
    return tuple(f"point_{number}" for number in range(count))


def _flip_pairs(path: Path, mirrored: Any, count: int) -> tuple[tuple[int, int], ...]:
    """Keypoints that change places in a mirror, from `flip_idx`: what each one becomes there."""
    if not (isinstance(mirrored, list) and sorted(map(repr, mirrored)) == sorted(map(repr, range(count)))):
        raise InputError(f"{path}: flip_idx={short(mirrored)} does not hold each of the numbers 0 to {count - 1} once")
    if any(mirrored[other] != keypoint for keypoint, other in enumerate(mirrored)):
        raise InputError(f"{path}: flip_idx={short(mirrored)} is not its own inverse: keypoints change places in pairs")
    return tuple((keypoint, other) for keypoint, other in enumerate(mirrored) if keypoint < other)


def _split_files(path: Path, settings: dict[str, Any], split: str) -> list[Path]:
    value = settings.get(split)
    if not value:
        splits = ", ".join(name for name in ("train", "val", "test") if settings.get(name))
        raise InputError(f"{path}: has no split {split!r}; it has {splits or 'none'}")
    root = path.parent / str(settings.get("path") or "")
    files: list[Path] = []
    for entry in value if isinstance(value, list) else [value]:
        place = _place(path, root, str(entry))
        if isdir(place):
            files += _image_files(place)
        else:
            lines = read_text(place).split("\n")
            files += [place.parent / line.strip() for line in lines if line.strip()]
    return files


def _place(path: Path, root: Path, entry: str) -> Path:
    """Where a split lies; exported data.yaml often say ../train/images for train/images beside them."""
    places = [root / entry, path.parent / entry, path.parent / entry.removeprefix("../")]
    for place in places:
        if exists(place):
            return place
    raise InputError(f"{path}: there is no {places[0]}; correct path or the split's entry")


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of images")
    found: Iterable[Path] = folder.rglob("*")
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)
