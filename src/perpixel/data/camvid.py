"""CamVid in SegNet's layout: a folder of frames a split, and beside it a folder of pictures whose pixels hold class numbers."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from perpixel.data.dataset import PastFrame
from perpixel.data.image import SUFFIXES, UNREADABLE, image_size, opened
from perpixel.data.table import Faults, TableBuilder, TableDataset
from perpixel.errors import InputError
from perpixel.structures import VOID, Stuff

CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist"),
)
"""The classes in the order of their numbers; 11 is unlabelled."""

_TRUTH = "annot"


class CamvidDataset(TableDataset):
    """A split of CamVid: every class is stuff, there are no objects to count.

    Its videos are what the split has of each sequence: labelled frames, named SEQUENCE_NUMBER. In the published split they
    lie a second apart, but in the validation split 1/15 of a second.
    """

    stuff = Stuff(CLASSES, tuple(range(len(CLASSES))))

    @property
    def box_only_counts(self) -> Int64[ndarray, " n"]:
        """None: there are no objects."""
        return np.zeros(len(self), dtype=np.int64)

    def stuff_map(self, index: int) -> UInt8[ndarray, "h w"]:
        """Of every pixel: s + 1 for class s, `VOID` where it is unlabelled.

        Raises:
            InputError: the picture of classes cannot be read, or holds other numbers or another size.
        """
        path = _truth_of(self.path(index))
        numbers = _read_numbers(path)
        if numbers.shape != tuple(self._sizes[index]):
            raise InputError(f"{path}: is {numbers.shape[1]}x{numbers.shape[0]}, its photo has another size")
        if numbers.max(initial=0) > len(CLASSES):
            raise InputError(f"{path}: holds the class number {numbers.max()}; CamVid has 0 to {len(CLASSES)}")
        return np.where(numbers == len(CLASSES), VOID, numbers + np.uint8(1)).astype(np.uint8)

    def before(self, index: int, count: int) -> list[PastFrame]:
        """The labelled frames before image `index` in its sequence."""
        first = index
        while first and index - first < count and self._sequence(first - 1) == self._sequence(index):
            first -= 1
        places = [max(index - back, first) for back in range(count, 0, -1)]
        return [PastFrame(self.image(place), self.stuff_map(place)) for place in places]

    def _sequence(self, index: int) -> str:
        """Files come sorted by sequence, then by number."""
        return self.path(index).stem.rpartition("_")[0]


def is_camvid(folder: Path) -> bool:
    """Whether `folder` is a split such as ``camvid/train``, with ``camvid/trainannot`` beside it."""
    return folder.is_dir() and folder.with_name(folder.name + _TRUTH).is_dir()


def read_camvid(split: Path, images: Path | None = None, *, skip_bad: bool = False) -> CamvidDataset:
    """The data set of a split.

    Args:
        split: the folder of the frames; its classes are in ``SPLITannot`` beside it, in PNGs of the same names.
        images: not needed: the frames are in `split`.
        skip_bad: leave out frames without a picture of classes and list them.

    Raises:
        InputError: names the file and the mend.
    """
    if images is not None:
        raise InputError(f"{split}: CamVid's frames are in the split's own folder: leave {images} out")
    faults, table = Faults(skip_bad), TableBuilder()
    for photo in sorted(path for path in split.iterdir() if path.suffix.lower() in SUFFIXES):
        if not _truth_of(photo).is_file():
            faults.report(f"{photo}: there is no picture of its classes {_truth_of(photo)}")
            continue
        table.add_image(photo.stem, photo.name, image_size(photo))
    if not table.image_ids:
        raise InputError(f"{split}: none of its images can be used")
    return CamvidDataset(str(split), table, split, (), (), (), faults.skipped)


def _truth_of(photo: Path) -> Path:
    return photo.parent.with_name(photo.parent.name + _TRUTH) / f"{photo.stem}.png"


def _read_numbers(path: Path) -> UInt8[ndarray, "h w"]:
    try:
        with opened(path) as picture:
            numbers = np.asarray(picture)
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as a picture of class numbers ({error})") from error
    if numbers.ndim != 2 or numbers.dtype != np.uint8:
        raise InputError(f"{path}: has colours; a picture of class numbers has one channel of 8 bits")
    return numbers
