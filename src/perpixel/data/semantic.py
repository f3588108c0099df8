"""Any data set that says what every pixel is, read for semantic segmentation: the classes of objects are stuff too."""

from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from perpixel.data.dataset import Dataset, Image, PastFrame, Record
from perpixel.data.masks import draw_shape
from perpixel.errors import InputError
from perpixel.structures import VOID, Stuff


class SemanticDataset(Dataset):
    """`inner` without objects: its stuff comes first, then the classes of its objects (Cityscapes: its train ids 0..18).

    Raises:
        InputError: `inner` does not say what every pixel is.
    """

    classes = ()
    category_ids = ()

    def __init__(self, inner: Dataset) -> None:
        if not inner.stuff:
            inner.stuff_map(0)  # says what is missing
        self.inner, self.name, self.skipped = inner, inner.name, inner.skipped
        stuff = inner.stuff
        self.stuff = Stuff((*stuff.names, *inner.classes), (*stuff.category_ids, *inner.category_ids))

    def __len__(self) -> int:
        return len(self.inner)

    def record(self, index: int) -> Record:
        """The image, without objects."""
        record = self.inner.record(index)
        boxes, labels = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)
        return Record(record.id, record.path, record.size, boxes, labels, (), None, labels.astype(bool), labels)

    def image(self, index: int) -> Image:
        """The pixels of image `index`."""
        return self.inner.image(index)

    def stuff_map(self, index: int) -> UInt8[ndarray, "h w"]:
        """Of every pixel: its class + 1, `VOID` unknown; an object's or a group's pixels have its class.

        Raises:
            InputError: an object's mask is not known, or a file cannot be read.
        """
        stuff, record = self.inner.stuff_map(index), self.inner.record(index)
        things = stuff == 0
        out = np.where(things, VOID, stuff).astype(np.uint8)
        for row in np.argsort(~record.crowd, kind="stable").tolist():  # single objects over groups
            shape = record.shapes[row]
            if shape is None:
                raise InputError(
                    f"{self.name}: image {record.id!r}: an object has no mask, so its pixels are not known"
                )
            out[draw_shape(shape, record.size) & things] = len(self.inner.stuff) + 1 + record.labels[row]
        return out

    def before(self, index: int, count: int) -> list[PastFrame]:
        """The frames before image `index`; of those that are labelled, objects are unknown pixels unless they are stuff."""
        return [
            PastFrame(image, None if stuff is None else np.where(stuff == 0, VOID, stuff).astype(np.uint8))
            for image, stuff in self.inner.before(index, count)
        ]

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image."""
        return self.inner.sizes

    @property
    def object_counts(self) -> Int64[ndarray, " n"]:
        """None."""
        return np.zeros(len(self), dtype=np.int64)

    @property
    def box_only_counts(self) -> Int64[ndarray, " n"]:
        """None."""
        return np.zeros(len(self), dtype=np.int64)

    def coco_truth(self) -> dict[str, Any]:
        """The images alone."""
        return self.inner.coco_truth() | {"annotations": [], "categories": []}
