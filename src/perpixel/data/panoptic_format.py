"""Forms of panoptic segmentation on disk: COCO's pictures of segment numbers with a json, and pictures of two channels.

COCO: red + 256 green + 65536 blue is the number of a pixel's segment, 0 where it has none; the json says what each segment is.
Two channels: red is the class's number, green counts its objects from 0 (255: a group of them); (0, 0) is no segment.
"""

import colorsys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from numpy import ndarray

from perpixel.data.image import UNREADABLE, opened
from perpixel.errors import InputError
from perpixel.structures import Segments, Stuff

GROUP = 255
"""Two channels: in place of an object's number."""

Info = dict[str, Any]
"""What COCO's json says of a segment: id, category_id, area, bbox, iscrowd."""


def ids_of_colors(colors: UInt8[ndarray, "h w 3"]) -> Int32[ndarray, "h w"]:
    """The segment number of each pixel of a picture."""
    red, green, blue = (colors[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65536 * blue


def colors_of_ids(ids: Int32[ndarray, "h w"]) -> UInt8[ndarray, "h w 3"]:
    """The picture of segment numbers, 0 to 2^24 - 1."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def read_colors(path: Path, size: tuple[int, int] | None = None) -> UInt8[ndarray, "h w 3"]:
    """A picture whose colours are numbers.

    Raises:
        InputError: no such file, no picture of three channels, or not of (height, width) `size`.
    """
    try:
        with opened(path) as picture:
            mode, colors = picture.mode, np.asarray(picture)
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as a picture of segments ({error})") from error
    if mode != "RGB":
        raise InputError(f"{path}: has the mode {mode}; a picture of segments has 3 channels of 8 bits (RGB)")
    if size is not None and colors.shape[:2] != size:
        raise InputError(f"{path}: is {colors.shape[1]}x{colors.shape[0]}, but its image is {size[1]}x{size[0]}")
    return colors


def categories_of(classes: Sequence[str], category_ids: Sequence[int], stuff: Stuff) -> list[dict[str, Any]]:
    """The categories of a panoptic json."""
    things = [{"id": i, "name": n, "isthing": 1} for n, i in zip(classes, category_ids, strict=True)]
    return things + [{"id": i, "name": n, "isthing": 0} for n, i in zip(stuff.names, stuff.category_ids, strict=True)]


def to_coco(segments: Segments, category_ids: Sequence[int]) -> tuple[UInt8[ndarray, "h w 3"], list[Info]]:
    """The picture of segment numbers, and what each segment is; segments without a pixel are left out.

    Args:
        segments: of a photo.
        category_ids: number of each label: those of the objects' classes, then those of stuff.
    """
    owner, labels = segments.map.cpu().numpy(), segments.labels.tolist()
    areas = np.bincount(owner[owner >= 0], minlength=len(labels))
    numbers = np.zeros(len(labels) + 1, dtype=np.int32)  # the last is that of no segment
    taken: set[int] = {0}
    count: dict[int, int] = defaultdict(int)
    infos = []
    for row, label in enumerate(labels):
        if not areas[row]:
            continue
        number = _number(label, count[label], taken)
        count[label] += 1
        taken.add(number)
        numbers[row] = number
        inside = owner == row
        y, x = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = [x[0], y[0], x[-1] + 1 - x[0], y[-1] + 1 - y[0]]
        infos.append(
            {
                "id": number,
                "category_id": int(category_ids[label]),
                "area": int(areas[row]),
                "bbox": [int(value) for value in box],
                "iscrowd": int(segments.crowd[row]),
            }
        )
    return colors_of_ids(numbers[owner]), infos


def _number(label: int, which: int, taken: set[int]) -> int:
    """A free segment number: as a colour, a hue of the class's own, another brightness for each of its objects."""
    hue, value = (0.13 + label * 0.61803399) % 1, 0.95 - 0.6 * (which * 0.61803399 % 1)
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, value))
    number = red + 256 * green + 65536 * blue
    while number in taken:
        number = (number + 1) % 2**24
    return number


def from_coco(
    colors: UInt8[ndarray, "h w 3"], infos: Sequence[Info], label_of: Mapping[int, int], name: str
) -> Segments:
    """The inverse of `to_coco`.

    Args:
        colors: the picture.
        infos: what its segments are.
        label_of: label of each category number.
        name: of the picture, for messages.

    Raises:
        InputError: picture and json do not belong together, or a category without label.
    """
    for info in infos:
        if info["category_id"] not in label_of:
            raise InputError(
                f"{name}: segment {info['id']} has category_id {info['category_id']}, which names no category"
            )
    owner = rows_of_ids(ids_of_colors(colors), np.array([info["id"] for info in infos], dtype=np.int64), name)
    return Segments(
        map=torch.from_numpy(owner),
        labels=torch.tensor([label_of[info["category_id"]] for info in infos], dtype=torch.long),
        scores=torch.ones(len(infos)),
        crowd=torch.tensor([bool(info.get("iscrowd")) for info in infos], dtype=torch.bool),
    )


def rows_of_ids(ids: Int32[ndarray, "h w"], known: ndarray, name: str) -> Int32[ndarray, "h w"]:
    """Each pixel's position among the `known` segment numbers, -1 where it has none.

    Raises:
        InputError: a pixel has a number that is not known, or a known number has no pixel.
    """
    order = np.argsort(known)
    in_order = np.append(known[order], 2**24)  # a number that no pixel has: nothing is beyond the last
    at = np.searchsorted(in_order, ids)
    found = in_order[at] == ids
    wrong = ~found & (ids != 0)
    if wrong.any():
        raise InputError(f"{name}: a pixel has the segment number {ids[wrong][0]}, which its annotation does not list")
    rows = np.append(order, -1)[np.where(found, at, len(order))].astype(np.int32)
    missing = np.flatnonzero(np.bincount(rows[found], minlength=len(known)) == 0)
    if len(missing):
        raise InputError(f"{name}: no pixel has the segment number {known[missing[0]]}, which its annotation lists")
    return rows


def to_two_channels(segments: Segments, category_ids: Sequence[int]) -> UInt8[ndarray, "h w 3"]:
    """A picture of class and object numbers; its third channel is 0.

    Raises:
        InputError: a class's number above 255, or more than 255 objects of a class: this form cannot hold them.
    """
    table = np.zeros((len(segments) + 1, 3), dtype=np.uint8)
    count: dict[int, int] = defaultdict(int)
    for row, (label, crowd) in enumerate(zip(segments.labels.tolist(), segments.crowd.tolist(), strict=True)):
        number = category_ids[label]
        if not 0 < number < 256 or count[label] >= GROUP:
            raise InputError(
                f"a picture of two channels holds classes 1 to 255 with at most {GROUP} objects each, not object"
                f" {count[label] + 1} of class {number}; write COCO's form"
            )
        table[row, :2] = number, GROUP if crowd else count[label]
        count[label] += not crowd
    return table[segments.map.cpu().numpy()]


def from_two_channels(colors: UInt8[ndarray, "h w 3"], label_of: Mapping[int, int], name: str) -> Segments:
    """The inverse of `to_two_channels`; arguments as of `from_coco`.

    Raises:
        InputError: a class without label.
    """
    pairs = colors[..., 0].astype(np.int32) * 256 + colors[..., 1]
    present = np.flatnonzero(np.bincount(pairs.ravel()))
    present = present[present > 0]
    infos = [{"id": pair, "category_id": pair >> 8, "iscrowd": pair & 255 == GROUP} for pair in present.tolist()]
    picture = colors_of_ids(pairs)
    return from_coco(picture, infos, label_of, name)
