"""CrowdHuman: a json a line (.odgt), each an image with its people and what nobody is to judge."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perpixel.config import load_json
from perpixel.data.dataset import box_fault
from perpixel.data.image import SUFFIXES, image_size
from perpixel.data.labels import align_classes
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.data.text import read_text
from perpixel.errors import InputError

PERSON = "person"
_IMAGES = ("Images", "images")


class CrowdHumanDataset(TableDataset):
    """A split of CrowdHuman: people by their whole bodies, hidden parts too."""


def read_crowdhuman(
    path: Path, images: Path | None = None, *, classes: Sequence[str] | None = None, skip_bad: bool = False
) -> CrowdHumanDataset:
    """The data set of an .odgt file: the full-body box (``fbox``) of every person; heads and visible parts are left out.

    What is not tagged ``person``, or is marked to be ignored, becomes a crowd: neither truth nor background. The size of each
    image is read from its file, as the annotations do not tell it. Boxes reach past the image where bodies do; records
    have them clipped, as of every data set.

    Args:
        path: such as annotation_train.odgt.
        images: the folder of the images; None means Images/ beside the file or one level up.
        classes: the classes of the training set.
        skip_bad: leave out bad lines and boxes and list them, instead of ending at the first.

    Raises:
        InputError: names the file, the line and the field.
    """
    folder = images or _folder_near(path)
    reader = _Reader(path, folder, Faults(skip_bad))
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            reader.read(f"{path}: line {number}", line)
    if not reader.table.image_ids:
        raise InputError(f"{path}: none of its images can be used; name their folder with images=…")
    names, category_ids = align_classes(str(path), {PERSON: 1}, (PERSON,), classes)
    reader.table.labels = array("q", [names.index(PERSON)] * len(reader.table))
    return CrowdHumanDataset(str(path), reader.table, folder, names, category_ids, (), reader.faults.skipped)


def _folder_near(path: Path) -> Path:
    places = [above / name for above in (path.parent, path.parent.parent) for name in _IMAGES]
    for folder in places:
        if folder.is_dir():
            return folder
    raise InputError(f"{path}: there is no folder {' or '.join(map(str, places))} of its images; name it with images=…")


class _BadLine(Exception):
    """Why a line or a box cannot be used."""


class _Reader:
    def __init__(self, path: Path, folder: Path, faults: Faults) -> None:
        self.path, self.folder, self.faults = path, folder, faults
        self.table = TableBuilder()
        self.files = {file.stem: file.name for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}
        self.seen: set[str] = set()

    def read(self, where: str, line: str) -> None:
        """Appends the image of a line and its people; `where` names file and line."""
        try:
            identity, people = _entry(line)
            if identity in self.seen:
                raise _BadLine(f"the ID {identity!r} occurs twice; the first line keeps it")
            self.seen.add(identity)
            if identity not in self.files:
                raise _BadLine(f"there is no image {identity}.jpg in {self.folder}, with its {len(people)} boxes")
            size = image_size(self.folder / self.files[identity])
        except (_BadLine, InputError) as fault:
            return self.faults.report(f"{where}: {fault}")
        row = self.table.add_image(identity, self.files[identity], size)
        for position, person in enumerate(people):
            try:
                box, crowd = _person(person, size)
            except _BadLine as fault:
                self.faults.report(f"{where}: gtboxes[{position}] of {identity}: {fault}")
                continue
            self.table.add_object(row, len(self.table) + 1, 0, box, crowd=crowd)
        return None


def _entry(line: str) -> tuple[str, list[Any]]:
    """Name and boxes of a line's image."""
    try:
        entry = load_json(line)
    except ValueError as error:
        raise _BadLine(f"is not json ({error})") from error
    match entry:
        case {"ID": str(identity), "gtboxes": list(people)}:
            return identity, people
    raise _BadLine("is no entry with ID, a text, and gtboxes, a list")


def _person(person: Any, size: tuple[int, int]) -> tuple[array, bool]:
    """x, y, width, height of the whole body, and whether it is to be ignored."""
    match person:
        case {"tag": str(tag), "fbox": [x, y, width, height] as box} if all(map(_is_number, box)):
            fault = box_fault((float(x), float(y), float(x + width), float(y + height)), size)
            if fault:
                raise _BadLine(f"fbox {box} {fault}")
        case _:
            raise _BadLine("has no tag, a text, or no fbox of four numbers: x, y, width, height")
    extra = person.get("extra")
    ignored = isinstance(extra, dict) and bool(extra.get("ignore"))
    return array("d", (x, y, width, height)), ignored or tag != PERSON


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300
