"""A COCO file that masks are added to: everything in it stays as it was, and every annotation without a new mask says why.

Nothing is dropped, so the file is held whole and entries are known by their place in it, not by their numbers.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from perpixel.config import load_json
from perpixel.data.dataset import box_fault
from perpixel.data.place import ImageFolder
from perpixel.data.text import read_text
from perpixel.engine.files import write_text
from perpixel.errors import InputError
from perpixel.ops.runs import Run, encode

FIELD = "perpixel"
"""The field that is added to each annotation this library looked at."""

CROWD = "crowds are kept as they are"
DRAWN = "they have a mask already, which is kept (--replace draws it anew)"
MALFORMED = "they are no objects with an image_id and a bbox of four numbers"
HOMELESS = "their image_id names no image of the file"
UNREADABLE = "their image cannot be read"
NOWHERE = "their box has no area inside the image"


@dataclass(frozen=True)
class ImageEntry:
    """One image of the file and the annotations that want a mask.

    Attributes:
        place: position in the file's list of images.
        path: the image's file.
        size: (height, width) that the file states, or None.
        rows: positions of its annotations.
    """

    place: int
    path: Path
    size: tuple[int, int] | None
    rows: tuple[int, ...]


@dataclass
class BoxFile:
    """The file while masks are added to it.

    Attributes:
        path: where it was read from.
        document: what it holds; annotations get masks in place.
        images: the images that have annotations to label, in the file's order.
        names: class name of each category number.
        left: positions of the annotations that got no mask, by the reason.
        unreadable: a sentence for each image that could not be read.
    """

    path: Path
    document: dict[str, Any]
    images: list[ImageEntry]
    names: dict[Any, str]
    left: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, folder: Path, replace: bool = False) -> "BoxFile":
        """Reads the file and sorts its annotations.

        Args:
            path: COCO ground truth.
            folder: of the images.
            replace: also label annotations that have a mask.

        Raises:
            InputError: no such file or folder, not JSON, or no COCO ground truth.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of images")
        file = cls(path, _document(path), [], {})
        for entry in file.document["categories"]:
            if isinstance(entry, dict) and "id" in entry:
                file.names[_key(entry["id"])] = str(entry.get("name"))
        file._sort(folder, replace)
        return file

    @property
    def annotations(self) -> list[Any]:
        """All of them, in the file's order."""
        return self.document["annotations"]

    def class_name(self, row: int) -> str | None:
        """The class of an annotation, or None where the file does not name it."""
        return self.names.get(_key(self.annotations[row].get("category_id")))

    def leave(self, rows: Sequence[int], why: str) -> None:
        """Notes that annotations get no mask, in the file too, unless they are kept as they are."""
        self.left[why].extend(rows)
        if why not in (CROWD, DRAWN, MALFORMED):
            for row in rows:
                self.annotations[row][FIELD] = {"mask": None, "why": why}

    def refuse(self, image: ImageEntry, sentence: str) -> None:
        """Notes an image that cannot be read."""
        self.unreadable.append(sentence)
        self.leave(image.rows, UNREADABLE)

    def boxes(self, image: ImageEntry, size: tuple[int, int]) -> tuple[list[int], Float32[np.ndarray, "n 4"]]:
        """The annotations of an image whose box has an area inside it, and these boxes, cut at the border, as xyxy."""
        rows, boxes = [], []
        for row in image.rows:
            x, y, width, height = (float(value) for value in self.annotations[row]["bbox"])
            if box_fault((x, y, x + width, y + height), size):
                self.leave([row], NOWHERE)
                continue
            rows.append(row)
            boxes.append((max(x, 0), max(y, 0), min(x + width, size[1]), min(y + height, size[0])))
        return rows, np.array(boxes, dtype=np.float32).reshape(-1, 4)

    def put(self, row: int, mask: Bool[np.ndarray, "h w"], how: str, score: float) -> None:
        """Gives an annotation its mask: `segmentation` is set, `area` only where there was none."""
        annotation, area = self.annotations[row], int(mask.sum())
        annotation["segmentation"] = encode(mask[None])[0]
        annotation.setdefault("area", area)
        annotation[FIELD] = {"mask": how, "score": round(score, 4), "area": area}

    def mask(self, row: int) -> Run | None:
        """The mask that `put` gave an annotation."""
        annotation = self.annotations[row]
        given = isinstance(annotation, dict) and (annotation.get(FIELD) or {}).get("mask")
        return annotation["segmentation"] if given else None

    def write(self, path: Path) -> None:
        """Writes the file whole or not at all."""
        # Escaped beyond ASCII: a file may hold halves of letters that no encoding can write.
        write_text(path, json.dumps(self.document))

    def _sort(self, folder: Path, replace: bool) -> None:
        inside = ImageFolder(folder)
        places: dict[Any, int] = {}
        for place, entry in enumerate(self.document["images"]):
            if isinstance(entry, dict) and "id" in entry:
                places.setdefault(_key(entry["id"]), place)
        rows: dict[int, list[int]] = defaultdict(list)
        for row, annotation in enumerate(self.annotations):
            if not _usable(annotation):
                self.leave([row], MALFORMED)
            elif annotation.get("iscrowd"):
                self.leave([row], CROWD)
            elif annotation.get("segmentation") and not replace:
                self.leave([row], DRAWN)
            elif _key(annotation["image_id"]) not in places:
                self.leave([row], HOMELESS)
            else:
                rows[places[_key(annotation["image_id"])]].append(row)
        for place in sorted(rows):
            entry = self.document["images"][place]
            image = ImageEntry(place, folder / str(entry.get("file_name")), _size(entry), tuple(rows[place]))
            name = entry.get("file_name")
            if not isinstance(name, str):
                self.refuse(image, f"{self.path}: images[{place}] has no file_name")
            elif fault := inside.fault(name):
                self.refuse(image, f"{self.path}: images[{place}]: {image.path} {fault}")
            else:
                self.images.append(image)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = load_json(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: is not valid json ({error}); perhaps the file was cut short") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds no COCO ground truth, which is an object with images and annotations")
    for member in ("images", "annotations", "categories"):
        if not isinstance(document.get(member), list):
            raise InputError(f"{path}: has no list {member!r}; COCO ground truth needs images, annotations, categories")
    return document


def _usable(annotation: Any) -> bool:
    if not isinstance(annotation, dict) or "image_id" not in annotation:
        return False
    box = annotation.get("bbox")
    return isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and not abs(v) > 1e300 for v in box)


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if type(height) is int and type(width) is int else None


def _key(identity: Any) -> Any:
    """An id as a key: lists and the like, which name nothing, become text."""
    return identity if isinstance(identity, int | str) else repr(identity)
