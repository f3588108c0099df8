"""Cityscapes: a folder of street scenes, and beside each a picture whose pixels hold the number of their object."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from numpy import ndarray

from perpixel.data.dataset import PastFrame
from perpixel.data.image import UNREADABLE, opened, read_image
from perpixel.data.labels import align_classes
from perpixel.data.masks import encode
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.errors import InputError
from perpixel.structures import VOID, Stuff

THINGS: dict[str, int] = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""Cityscapes' numbers of the eight classes with instances."""

STUFF: dict[str, int] = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
}
"""Its numbers of the evaluated classes without instances; all that is neither these nor things is void."""

_TRUTH, _PHOTO = "_gtFine_instanceIds.png", "_leftImg8bit.png"


class CityscapesDataset(TableDataset):
    """A split of Cityscapes; `instance_ids` gives the truth as its own evaluation reads it."""

    stuff = Stuff(tuple(STUFF), tuple(STUFF.values()))

    def stuff_map(self, index: int) -> UInt8[ndarray, "h w"]:
        """Of every pixel: 0 an object or a group of objects, s + 1 stuff of class s, `VOID` what is not evaluated."""
        ids = self.instance_ids(index)
        values = np.full(256, VOID, dtype=np.uint8)
        values[list(THINGS.values())] = 0
        values[list(STUFF.values())] = np.arange(1, len(STUFF) + 1)
        return values[np.where(ids >= 1000, ids // 1000, ids.clip(min=0))]

    def before(self, index: int, count: int) -> list[PastFrame]:
        """Frames from the package leftImg8bit_sequence beside the photos: nobody labelled them.

        Raises:
            InputError: the package is not there, or a frame cannot be read.
        """
        photo = self.path(index)
        folder = self.folder.parent.parent / "leftImg8bit_sequence" / self.folder.name / photo.parent.name
        if not folder.is_dir():
            raise InputError(
                f"{folder}: there is no such folder with the frames before {photo.name}: unpack leftImg8bit_sequence, or set"
                " data.frames=1"
            )
        stem, _, number = photo.name.removesuffix(_PHOTO).rpartition("_")
        names = [f"{stem}_{int(number) - back:0{len(number)}}{_PHOTO}" for back in range(count, 0, -1)]
        return [PastFrame(read_image(folder / name), None) for name in names]

    def instance_ids(self, index: int) -> Int32[ndarray, "h w"]:
        """Of each pixel: 1000 * class + number of the object, or the class alone where no single object is told.

        Raises:
            InputError: the file cannot be read.
        """
        photo = self.path(index)
        return _read_ids(Path(self.name) / photo.parent.name / (photo.name.removesuffix(_PHOTO) + _TRUTH))


def is_cityscapes(folder: Path) -> bool:
    """Whether `folder` is a split such as ``gtFine/val``: folders of cities with pictures of object numbers."""
    return folder.is_dir() and next(folder.glob(f"*/*{_TRUTH}"), None) is not None


def read_cityscapes(
    split: Path, images: Path | None = None, *, classes: Sequence[str] | None = None, skip_bad: bool = False
) -> CityscapesDataset:
    """The data set of a split in the official layout: ``gtFine/train`` with ``leftImg8bit/train`` beside gtFine.

    Every object is read from ``CITY/…_gtFine_instanceIds.png``, which takes about a tenth of a second an image. Pixels of the
    eight classes without an object's number are groups: each connected part is a crowd.

    Args:
        split: the folder of the split, with a folder a city.
        images: the folder of the photos, with a folder a city; None means leftImg8bit/SPLIT beside gtFine.
        classes: the classes of the training set.
        skip_bad: leave out bad images and list them.

    Raises:
        InputError: names the file and the mend.
    """
    folder = images or split.parent.parent / "leftImg8bit" / split.name
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of photos; name it with images=…")
    names, category_ids = align_classes(str(split), THINGS, THINGS, classes)
    label_of = {number: names.index(name) for name, number in THINGS.items()}
    faults, table = Faults(skip_bad), TableBuilder()
    for truth in sorted(split.glob(f"*/*{_TRUTH}")):
        name = truth.name.removesuffix(_TRUTH)
        photo = Path(truth.parent.name) / f"{name}{_PHOTO}"
        if not (folder / photo).is_file():
            faults.report(f"{truth}: there is no photo {folder / photo}")
            continue
        try:
            ids = _read_ids(truth)
        except InputError as error:
            faults.report(str(error))
            continue
        row = table.add_image(name, str(photo), (ids.shape[0], ids.shape[1]))
        for number, mask, crowd in objects_of(ids):
            y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = array("d", (x[0], y[0], x[-1] + 1 - x[0], y[-1] + 1 - y[0]))
            label = label_of[number]
            table.add_object(row, len(table) + 1, label, box, crowd=crowd, code=encode(mask).counts)
    if not table.image_ids:
        raise InputError(f"{split}: none of its images can be used")
    return CityscapesDataset(str(split), table, folder, names, category_ids, (), faults.skipped)


def objects_of(ids: Int32[ndarray, "h w"]) -> Iterator[tuple[int, Bool[ndarray, "h w"], bool]]:
    """The objects of a picture of numbers: class number, mask, and whether it is a group."""
    present = np.flatnonzero(np.bincount(ids.ravel().clip(min=0)))
    things = set(THINGS.values())
    for number in present.tolist():
        if number in things:
            yield from ((number, part, True) for part in _connected(ids == number))
        elif number >= 1000 and number // 1000 in things:
            yield number // 1000, ids == number, False


def _connected(mask: Bool[ndarray, "h w"]) -> Iterator[Bool[ndarray, "h w"]]:
    """The parts of a mask that touch at sides: runs of each row joined to those above that they overlap."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, begins = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    part = list(range(len(rows)))

    def root(run: int) -> int:
        while part[run] != run:
            run = part[run]
        return run

    first_above = first = 0
    for run, row in enumerate(rows.tolist()):
        if run == 0 or row != rows[run - 1]:
            first_above, first = first, run
        for above in range(first_above, first):
            if rows[above] == row - 1 and begins[above] < ends[run] and begins[run] < ends[above]:
                part[root(above)] = root(run)
    roots = np.array([root(run) for run in range(len(rows))])
    for one in np.unique(roots):
        out = np.zeros_like(mask)
        for run in np.flatnonzero(roots == one):
            out[rows[run], begins[run] : ends[run]] = True
        yield out


def _read_ids(path: Path) -> Int32[ndarray, "h w"]:
    try:
        with opened(path) as picture:
            ids = np.asarray(picture).astype(np.int32)
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as a picture of object numbers ({error})") from error
    if ids.ndim != 2:
        raise InputError(f"{path}: has colours; a picture of object numbers has one channel of 16 bits")
    return ids
