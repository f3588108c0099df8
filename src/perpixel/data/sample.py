"""One image and its objects made ready for a batch."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy import ndarray
from torchvision.transforms.v2 import functional

from perpixel.data.dataset import Dataset, PastFrame, Record, Shape
from perpixel.data.geometry import draw_placement, place_objects, resized_size, whole
from perpixel.data.masks import Patch
from perpixel.data.settings import Color, DataConfig
from perpixel.errors import InputError


@dataclass(frozen=True)
class Sample:
    """An image of a batch, before the padding; fields as in `perpixel.structures`."""

    id: int | str
    image: UInt8[ndarray, "_ _ 3"]
    size: tuple[int, int]
    original: tuple[int, int]
    boxes: Float32[ndarray, "n 4"]
    labels: Int64[ndarray, " n"]
    masks: tuple[Patch, ...] | None
    centers: Float32[ndarray, "n 2"] | None
    keypoints: Float32[ndarray, "n k 3"] | None
    ignored: Float32[ndarray, "m 4"]
    drawn: Bool[ndarray, " n"] | None = None
    stuff: UInt8[ndarray, "_ _"] | None = None
    before: tuple[PastFrame, ...] = ()


def train_sample(dataset: Dataset, index: int, data: DataConfig, random: np.random.Generator) -> Sample:
    """Image `index` augmented; all chance comes from `random`."""
    record, augment = dataset.record(index), data.augment
    image = dataset.image(index)
    placement = draw_placement(record.size, augment, random)
    objects = np.flatnonzero(~record.crowd)
    limits = {"min_visible": augment.min_visible, "min_side": augment.min_side}
    shapes = tuple(_shape(dataset, record, row, data) for row in objects.tolist())
    try:
        placed = place_objects(placement, record.boxes[objects], shapes, masks=bool(data.masks), **limits)
    except InputError as error:
        raise InputError(f"{dataset.name}: image {record.id!r}: {error}") from error
    crowd = np.flatnonzero(record.crowd)
    ignored = place_objects(placement, record.boxes[crowd], (None,) * len(crowd), masks=False)
    rows = objects[placed.rows]
    drawn = np.array([shapes[row] is not None for row in placed.rows], dtype=bool)
    keypoints = record.keypoints
    before = tuple(
        # Every frame of a window changes alike: the same place, the same colours.
        PastFrame(
            change_color(placement.image(frame.image), augment.color, copy.deepcopy(random)),
            placement.classes(frame.stuff) if data.stuff and frame.stuff is not None else None,
        )
        for frame in _before(dataset, index, data)
    )
    return Sample(
        id=record.id,
        image=change_color(placement.image(image), augment.color, random),
        size=placement.size,
        original=record.size,
        boxes=placed.boxes,
        labels=record.labels[rows],
        masks=placed.masks,
        centers=None if placed.masks is None else _centers(placed.masks, drawn, placed.boxes),
        keypoints=None if keypoints is None else placement.keypoints(keypoints[rows], dataset.flip_pairs),
        ignored=ignored.boxes,
        drawn=None if placed.masks is None else drawn,
        stuff=placement.classes(dataset.stuff_map(index)) if data.stuff else None,
        before=before,
    )


def _before(dataset: Dataset, index: int, data: DataConfig) -> list[PastFrame]:
    return dataset.before(index, data.frames - 1) if data.frames > 1 else []


def _shape(dataset: Dataset, record: Record, row: int, data: DataConfig) -> Shape:
    """The mask of an object, unless the settings withhold that of its class."""
    used = data.masks_of is None or dataset.classes[record.labels[row]] in data.masks_of
    return record.shapes[row] if used else None


def test_sample(dataset: Dataset, index: int, data: DataConfig) -> Sample:
    """Image `index` resized, without objects; its id is `index`."""
    image = dataset.image(index)
    original = (image.shape[0], image.shape[1])
    size = resized_size(original, data.test.short_side, data.test.max_side)
    none = np.zeros((0, 4), dtype=np.float32)
    place = whole(original, size)
    before = tuple(PastFrame(place.image(frame.image), None) for frame in _before(dataset, index, data))
    no_labels = np.zeros(0, dtype=np.int64)
    return Sample(index, place.image(image), size, original, none, no_labels, None, None, None, none, before=before)


test_sample.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  (not a test case, whatever its name)


def _centers(
    masks: tuple[Patch, ...], drawn: Bool[ndarray, " n"], boxes: Float32[ndarray, "n 4"]
) -> Float32[ndarray, "n 2"]:
    """Mass centres; the box's centre where the mask is not known."""
    mass = np.array([mask.center for mask in masks], dtype=np.float32).reshape(-1, 2)
    return np.where(drawn[:, None], mass, (boxes[:, :2] + boxes[:, 2:]) / 2)


def change_color(image: UInt8[ndarray, "h w 3"], color: Color, random: np.random.Generator) -> UInt8[ndarray, "h w 3"]:
    """Random brightness, contrast, saturation and hue, in random order."""
    order = random.permutation(4)
    draws = random.uniform(-1, 1, size=4)
    if color == Color():
        return image
    strengths = (color.brightness, color.contrast, color.saturation, color.hue)
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    for which in order:
        change = float(strengths[which] * draws[which])
        if change:
            pixels = changes[which](pixels, change if which == 3 else 1 + change)
    return pixels.permute(1, 2, 0).contiguous().numpy()
