"""The masks of a data set, each cut out by its box into a few cells: an image at a time, no photo is read."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from perpixel.data.dataset import Dataset, Record, Rle, Shape
from perpixel.data.masks import Patch, patch_code, patch_polygons
from perpixel.errors import InputError
from perpixel.ops.masks import crop_masks


@dataclass(frozen=True)
class MaskCrops:
    """Masks of one image.

    Attributes:
        masks: (n, s, s) what of each object's box is its mask, as `crop_masks` cuts it.
        labels: (n,) of the objects.
        failure: what is wrong with the image's annotations, in one sentence.
    """

    masks: Bool[ndarray, "n s s"]
    labels: Int64[ndarray, " n"]
    failure: str | None = None


def mask_crops(
    dataset: Dataset,
    size: int,
    *,
    classes: Collection[str] | None = None,
    skip_bad: bool = False,
    workers: int = 0,
) -> Iterator[MaskCrops]:
    """The masks of every image, in the data set's order; crowds and objects of which only the box is known have none.

    Args:
        dataset: with masks.
        size: cells a side.
        classes: names of the classes whose masks are used; None uses all.
        skip_bad: an image with a mask that cannot be drawn gives none and is listed in `dataset.skipped`.
        workers: processes that draw masks; 0 draws them in this one.

    Raises:
        InputError: a mask that cannot be drawn.
    """
    loader = DataLoader(
        _Images(dataset, size, classes),
        batch_size=None,
        collate_fn=_unchanged,  # pyright: ignore[reportArgumentType]  (the stubs know lists of samples only)
        num_workers=workers,
        worker_init_fn=_quiet_worker,
    )
    for crops in loader:
        if crops.failure is not None and not skip_bad:
            raise InputError(crops.failure)
        if crops.failure is not None and crops.failure not in dataset.skipped:
            dataset.skipped.append(crops.failure)
        yield crops


def drawn_rows(record: Record) -> list[int]:
    """The objects of an image whose mask is known."""
    return [row for row in np.flatnonzero(~record.crowd).tolist() if record.shapes[row] is not None]


def patch_of(shape: Shape, size: tuple[int, int]) -> Patch:
    """A mask geometry drawn on the grid of its own image of (height, width)."""
    assert shape is not None
    return patch_code(shape) if isinstance(shape, Rle) else patch_polygons(shape, size)


class _Images(TorchDataset):
    """What a worker runs. A user's error travels as its sentence."""

    def __init__(self, dataset: Dataset, size: int, classes: Collection[str] | None) -> None:
        self.dataset, self.size = dataset, size
        names = dataset.classes if classes is None else classes
        self.used = np.array([name in names for name in dataset.classes], dtype=bool)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> MaskCrops:
        record = self.dataset.record(index)
        rows = [row for row in drawn_rows(record) if self.used[record.labels[row]]]
        masks = np.zeros((len(rows), self.size, self.size), dtype=bool)
        try:
            for mask, row in zip(masks, rows, strict=True):
                mask[:] = cut_out(patch_of(record.shapes[row], record.size), record.boxes[row], self.size)
        except InputError as error:
            return MaskCrops(masks[:0], record.labels[:0], f"{self.dataset.name}: image {record.id!r}: {error}")
        return MaskCrops(masks, record.labels[rows])


def cut_out(patch: Patch, box: Float32[ndarray, " 4"], size: int) -> Bool[ndarray, "s s"]:
    """A mask in `size` x `size` cells of a box.

    The box is moved into the patch's own frame: beyond the patch there is no mask.
    """
    moved = torch.from_numpy(box) - torch.tensor([patch.left, patch.top] * 2)
    pixels = torch.from_numpy(patch.pixels)[None]
    return crop_masks(pixels, torch.zeros(1, dtype=torch.long), moved[None], size)[0].numpy()


def _unchanged(crops: MaskCrops) -> MaskCrops:
    return crops


def _quiet_worker(_: int) -> None:
    """One thread a worker: the image is the unit of parallel work."""
    torch.set_num_threads(1)
