"""LVIS: COCO's photos and form, over a thousand classes, of which each photo is annotated with some (a "federated" data set).

Beside its annotations a photo lists the classes that are surely not in it, and those of which not every object is annotated.
"""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from perpixel.data.coco import CocoReader
from perpixel.data.json_kind import LISTS_OF_LVIS
from perpixel.data.json_stream import members
from perpixel.data.labels import align_classes
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.errors import InputError

Frequency = Literal["r", "c", "f"]
"""Rare, common, frequent: by the number of training photos."""


_SYNSETS: dict[str, str] = {
    "fire hydrant": "fireplug.n.01",
    "cow": "beef.n.01",
    "handbag": "bag.n.04",
    "tie": "necktie.n.01",
    "suitcase": "bag.n.06",
    "skis": "ski.n.01",
    "sports ball": "ball.n.06",
    "kite": "kite.n.03",
    "wine glass": "wineglass.n.01",
    "bowl": "bowl.n.03",
    "banana": "banana.n.02",
    "hot dog": "frank.n.02",
    "donut": "doughnut.n.02",
    "cake": "cake.n.03",
    "couch": "sofa.n.01",
    "potted plant": "pot.n.04",
    "toilet": "toilet.n.02",
    "tv": "television_receiver.n.01",
    "mouse": "mouse.n.04",
    "remote": "remote_control.n.01",
    "keyboard": "computer_keyboard.n.01",
    "cell phone": "cellular_telephone.n.01",
    "microwave": "microwave.n.02",
    "toaster": "toaster.n.02",
    "refrigerator": "electric_refrigerator.n.01",
    "teddy bear": "teddy.n.01",
    "hair drier": "hand_blower.n.01",
}


def synset_of(name: str) -> str:
    """WordNet's sense of a COCO class, by which LVIS knows its own classes: the first of the name but for some (LVIS's table)."""
    return _SYNSETS.get(name, f"{name.replace(' ', '_')}.n.01")


def read_lvis(
    path: Path, images: Path | None = None, *, classes: Sequence[str] | None = None, skip_bad: bool = False
) -> "LvisDataset":
    """The data set of an LVIS json (v1, or v0.5).

    With `classes`, those of a model, only their annotations are taken. A class is found by its name, or by its sense: so a
    model of COCO's 80 classes is measured on LVIS's finer masks ("LVIS AP*" of thesis 004, table 4.11).

    Args:
        path: the json file.
        images: the folder that has val2017 and train2017 in it; None looks for it near the file.
        classes: the model's classes.
        skip_bad: leave out bad images and annotations and list them, instead of ending at the first.

    Raises:
        InputError: names the file, the entry and the field.
    """
    reader = _Reader(path, Faults(skip_bad))
    for member, items in members(path):
        reader.take(member, items)
    return reader.lvis(images, classes)


class LvisDataset(TableDataset):
    """A data set whose truth says of each image what was looked for.

    Args:
        name, builder, folder, classes, category_ids, skipped: as of `TableDataset`.
        frequencies: of the classes that the file has, by category number.
        lists: of each image, by its id: classes surely absent, classes not annotated everywhere; category numbers.
    """

    def __init__(
        self,
        name: str,
        builder: TableBuilder,
        folder: Path,
        classes: tuple[str, ...],
        category_ids: tuple[int, ...],
        skipped: list[str],
        frequencies: dict[int, Frequency],
        lists: dict[int | str, dict[str, list[int]]],
    ) -> None:
        super().__init__(name, builder, folder, classes, category_ids, (), skipped)
        self.frequencies, self.lists = frequencies, lists

    def coco_truth(self) -> dict[str, Any]:
        """Ground truth as LVIS's evaluation reads it: COCO's form, with what it adds to images and classes."""
        truth = super().coco_truth()
        categories = [c | {"frequency": self.frequencies.get(c["id"], "f")} for c in truth["categories"]]
        images = [image | self.lists[image["id"]] for image in truth["images"]]
        return truth | {"categories": categories, "images": images}


class _Reader(CocoReader):
    """Reads what LVIS adds on the way."""

    def __init__(self, path: Path, faults: Faults) -> None:
        super().__init__(path, faults)
        self.frequencies: dict[int, Frequency] = {}
        self.synsets: dict[int, str] = {}
        self.lists: dict[int | str, dict[str, list[int]]] = {}

    def take(self, member: str, items: Iterator[Any]) -> None:
        """Reads one member of the file."""
        if member == "categories":
            items = self._noting_categories(items)
        elif member == "images":
            items = self._noting_images(items)
        super().take(member, items)

    def _noting_categories(self, items: Iterator[Any]) -> Iterator[Any]:
        for entry in items:
            yield entry
            # Only now, for the reader above has checked the rest of the entry.
            if entry.get("frequency") not in ("r", "c", "f"):
                raise InputError(f"{self.path}: categories: frequency of {entry['name']!r} is not r, c or f")
            self.frequencies[entry["id"]] = entry["frequency"]
            self.synsets[entry["id"]] = str(entry.get("synset", ""))

    def _noting_images(self, items: Iterator[Any]) -> Iterator[Any]:
        """Each image with a file's name: v1 gives an address that ends in folder and file."""
        for position, entry in enumerate(items):
            lists: dict[str, Any] = {name: entry.get(name) for name in LISTS_OF_LVIS} if isinstance(entry, dict) else {}
            wrong = [name for name, numbers in lists.items() if not _whole_numbers(numbers)]
            if wrong:
                self.faults.report(f"{self.path}: images[{position}]: {wrong[0]} is not a list of whole numbers")
                continue
            if lists and "file_name" not in entry and isinstance(entry.get("coco_url"), str):
                entry = entry | {"file_name": "/".join(entry["coco_url"].split("/")[-2:])}
            yield entry
            # Only now, for the reader above has checked the id.
            if lists and isinstance(entry.get("id"), int | str) and entry["id"] in self.images:
                self.lists[entry["id"]] = lists

    def lvis(self, images: Path | None, classes: Sequence[str] | None) -> LvisDataset:
        """The data set of all that was read."""
        folder = self.join(images)
        name_of = self._names(classes)
        numbers = {name: number for number, name in name_of.items()}
        table = self.table
        table.image_rows = array(
            "q", [row if label in name_of else -1 for row, label in zip(table.image_rows, table.labels, strict=True)]
        )
        names, category_ids = align_classes(str(self.path), numbers, numbers, classes)
        position = {number: label for label, number in enumerate(category_ids)}
        table.labels = array("q", [position.get(number, 0) for number in table.labels])
        lists = {
            identity: {name: [number for number in found if number in name_of] for name, found in of_image.items()}
            for identity, of_image in self.lists.items()
        }
        return LvisDataset(
            str(self.path), table, folder, names, category_ids, self.faults.skipped, self.frequencies, lists
        )

    def _names(self, classes: Sequence[str] | None) -> dict[int, str]:
        """What each category that is taken is called, by its number.

        Raises:
            InputError: none of the model's classes is among the categories.
        """
        own = {number: entry["name"] for number, entry in self.categories.items()}
        if classes is None:
            return own
        by_sense = {synset_of(name): name for name in classes}
        found = {
            number: name if name in classes else by_sense[self.synsets[number]]
            for number, name in own.items()
            if name in classes or self.synsets[number] in by_sense
        }
        if not found:
            raise InputError(f"{self.path}: none of the model's classes ({', '.join(classes[:5])} …) is among its own")
        return found


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int) for value in values)
