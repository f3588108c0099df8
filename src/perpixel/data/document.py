"""A data set as a whole, with everything its files say: what conversions, statistics and splits work on.

It stands in COCO's form: lists of images, annotations and categories, whose entries also have the fields that this library does
not read, under their own names.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from os.path import commonpath
from pathlib import Path
from typing import Any

import numpy as np

from perpixel.data.dataset import Dataset, Rle, Shape
from perpixel.data.extras import KNOWN, Extras
from perpixel.data.masks import patch_code
from perpixel.data.open import open_dataset
from perpixel.data.place import climbs
from perpixel.data.table import TableDataset
from perpixel.errors import InputError


@dataclass(frozen=True)
class AnnotatedObject:
    """One object as a writer wants it.

    Attributes:
        name: its class.
        box: xyxy in pixels of the image, as the files say it; it may reach past the image.
        shape: polygons, a run-length code, or None.
        crowd: see `perpixel.data.dataset.Record`.
        keypoints: (k, 3) x, y, visibility at pixel centres, or None where none is labelled.
        extra: fields that this library does not read.
    """

    name: str
    box: tuple[float, float, float, float]
    shape: Shape
    crowd: bool
    keypoints: np.ndarray | None
    extra: dict[str, Any]


@dataclass
class Losses:
    """What a form cannot carry: every object and field that goes in comes out or is counted here.

    Attributes:
        objects: objects left out, by the reason.
        changed: objects written otherwise than they were, by what changed.
        fields: fields left out, by their name and where they stood.
    """

    objects: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)

    def leave_fields(self, where: str, names: Collection[str]) -> None:
        """Counts fields that are left out."""
        self.fields.update(f"{name!r} of {where}" for name in names)

    def leave_classes(self, document: "Document") -> None:
        """Counts what is said of the whole data set and of classes beside their names."""
        self.leave_fields("the data set", document.whole)
        for category in document.content["categories"]:
            self.leave_fields("a class", extra_of(category, "categories"))

    def lines(self) -> list[str]:
        """A sentence each."""
        lines = [f"left out: {count} objects: {why}" for why, count in self.objects.items()]
        lines += [f"changed: {count} {what}" for what, count in self.changed.items()]
        return lines + [f"left out: field {name} ({count})" for name, count in sorted(self.fields.items())]


@dataclass
class Document:
    """Images, annotations and categories.

    Attributes:
        dataset: where the pixels come from.
        content: COCO's form: images, annotations, categories and whatever else the file has.
        extras: what was collected beside that which is read; its fields stand in `content` already.
        files: of each image, by its id, the name of its file below the folder of all images.
        rows: of each image its number in `dataset`.
    """

    dataset: Dataset
    content: dict[str, Any]
    extras: Extras
    files: dict[int | str, str]
    rows: dict[int | str, int]

    @classmethod
    def read(cls, source: str | Path, images: str | Path | None = None, *, skip_bad: bool = False) -> "Document":
        """Everything that the files of a data set say; arguments and errors are those of `open_dataset`."""
        extras = Extras()
        dataset = open_dataset(source, images, skip_bad=skip_bad, extras=extras)
        return cls.of(dataset, extras)

    @classmethod
    def of(cls, dataset: Dataset, extras: Extras) -> "Document":
        """A data set that is open, with what was collected on the way."""
        truth = dataset.coco_truth()
        categories = truth["categories"]
        if extras.classes:  # of a file whose classes need not all have keypoints
            categories = [{"id": c["id"], "name": c["name"]} | extras.classes.get(c["name"], {}) for c in categories]
        pictures = [entry | _unread(extras.images.get(entry["id"], {}), "images") for entry in truth["images"]]
        annotations = [
            entry | _unread(extras.objects.get(entry["id"], {}), "annotations") for entry in truth["annotations"]
        ]
        lists = {"images": pictures, "annotations": annotations, "categories": categories}
        rows = {entry["id"]: row for row, entry in enumerate(pictures)}
        return cls(dataset, extras.whole | lists, extras, _files(dataset, pictures), rows)

    @property
    def images(self) -> list[dict[str, Any]]:
        """The entries of the images."""
        return self.content["images"]

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """The entries of the objects."""
        return self.content["annotations"]

    @property
    def classes(self) -> list[str]:
        """The names of the categories, in their order."""
        return [entry["name"] for entry in self.content["categories"]]

    @property
    def whole(self) -> dict[str, Any]:
        """The fields beside images, annotations and categories."""
        return {name: value for name, value in self.content.items() if name not in KNOWN}

    def only(self, images: Collection[int | str]) -> "Document":
        """The same with some of the images, in the order of the whole."""
        kept = set(images)
        content = self.content | {
            "images": [entry for entry in self.images if entry["id"] in kept],
            "annotations": [entry for entry in self.annotations if entry["image_id"] in kept],
        }
        return Document(self.dataset, content, self.extras, self.files, self.rows)

    def without_shapes(self, losses: Losses) -> "Document":
        """The same with boxes alone."""
        drawn = sum("segmentation" in entry for entry in self.annotations)
        if drawn:
            losses.changed["masks left out, as asked for"] += drawn
        bare = [{k: v for k, v in entry.items() if k != "segmentation"} for entry in self.annotations]
        return Document(self.dataset, self.content | {"annotations": bare}, self.extras, self.files, self.rows)

    def path(self, image: int | str) -> Path | None:
        """The file of an image; None where it is made on the fly."""
        return self.dataset.record(self.rows[image]).path

    def by_image(self) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Each image's entry with those of its objects."""
        of_image: dict[int | str, list[dict[str, Any]]] = {entry["id"]: [] for entry in self.images}
        for entry in self.annotations:
            of_image[entry["image_id"]].append(entry)
        for entry in self.images:
            yield entry, of_image[entry["id"]]

    def objects(self, losses: Losses) -> Iterator[tuple[dict[str, Any], list[AnnotatedObject]]]:
        """Each image's entry with its objects; a run-length code of an empty mask is left out."""
        names = {entry["id"]: entry["name"] for entry in self.content["categories"]}
        for image, entries in self.by_image():
            size = image["height"], image["width"]
            objects = [_object(entry, names[entry["category_id"]], size) for entry in entries]
            empty = [self._is_empty(entry, one.shape) for entry, one in zip(entries, objects, strict=True)]
            if any(empty):
                losses.changed["empty masks left out"] += sum(empty)
            yield image, [replace(one, shape=None) if bare else one for one, bare in zip(objects, empty, strict=True)]

    def _is_empty(self, entry: dict[str, Any], shape: Shape) -> bool:
        """Whether a mask is a run-length code that covers no pixel."""
        try:
            return isinstance(shape, Rle) and not patch_code(shape).pixels.size
        except InputError as error:
            where = f"{self.dataset.name}: annotation {entry['id']} of image {entry['image_id']!r}: segmentation"
            raise InputError(f"{where}: {error}; mend it or leave it out") from error


def extra_of(entry: dict[str, Any], member: str) -> dict[str, Any]:
    """The fields of an entry of images, annotations or categories that this library does not read."""
    return {name: value for name, value in entry.items() if name not in KNOWN[member]}


def shape_of(entry: dict[str, Any], size: tuple[int, int]) -> Shape:
    """The mask of an annotation."""
    drawn = entry.get("segmentation")
    if not drawn:
        return None
    if isinstance(drawn, dict):
        return Rle(size, drawn["counts"].encode())
    return tuple(np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in drawn)


def _object(entry: dict[str, Any], name: str, size: tuple[int, int]) -> AnnotatedObject:
    x, y, width, height = entry["bbox"]
    keypoints = np.array(entry.get("keypoints") or [], dtype=np.float64).reshape(-1, 3)
    seen = keypoints[:, 2] > 0
    keypoints[seen, :2] += 0.5
    return AnnotatedObject(
        name,
        (x, y, x + width, y + height),
        shape_of(entry, size),
        bool(entry.get("iscrowd")),
        keypoints if seen.any() else None,
        extra_of(entry, "annotations"),
    )


def _unread(extra: dict[str, Any], member: str) -> dict[str, Any]:
    """Fields of other forms could bear a name that COCO uses for something else: such get a line in front."""
    return {(f"_{name}" if name in KNOWN[member] else name): value for name, value in extra.items()}


def _files(dataset: Dataset, images: list[dict[str, Any]]) -> dict[int | str, str]:
    """The images' names below the folder of all; never a way out of that folder."""
    if isinstance(dataset, TableDataset) and dataset.folder != Path():
        names = [entry["file_name"] for entry in images]
    else:
        paths = [dataset.record(row).path for row in range(len(images))]
        known = [path.absolute() for path in paths if path is not None]
        root = Path(commonpath([path.parent for path in known])) if known else Path()
        names = [
            entry["file_name"] if path is None else path.absolute().relative_to(root).as_posix()
            for entry, path in zip(images, paths, strict=True)
        ]
    for name in names:
        if climbs(name):
            raise InputError(f"{dataset.name}: the image {name!r} leaves the folder of the images; rename it")
    return {entry["id"]: name.replace("\\", "/") for entry, name in zip(images, names, strict=True)}
