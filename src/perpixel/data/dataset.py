"""What a data set is: records of images with their objects, in pixels of the original image."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from numpy import ndarray

from perpixel.errors import InputError
from perpixel.structures import Stuff

Polygons = tuple[ndarray, ...]
Image = UInt8[ndarray, "_ _ 3"]


@dataclass(frozen=True)
class Rle:
    """A mask in COCO's compressed run-length code.

    Attributes:
        size: (height, width) of the mask, that of its image.
        counts: the runs, column by column, as COCO compresses them.
    """

    size: tuple[int, int]
    counts: bytes


Shape = Polygons | Rle | None


@dataclass(frozen=True)
class Record:
    """One image and its objects, in pixels of the original image, continuous coordinates.

    Attributes:
        id: what the data set calls the image.
        path: the image's file, or None where the image is made on the fly.
        size: (height, width).
        boxes: (n, 4) xyxy, clipped to the image.
        labels: (n,) 0..K-1.
        shapes: a mask an object: polygons ((m, 2) arrays of x, y), a run-length code, or None where only a box is known.
        keypoints: (n, k, 3) x, y, visibility (0 absent, 1 hidden, 2 visible), or None where the data set has none.
            COCO files name keypoints by pixel index; they stand here half a pixel further, at the pixel's centre.
        crowd: (n,) groups of objects, or objects marked difficult: neither truth nor background.
        annotation_ids: (n,) the file's numbers.
    """

    id: int | str
    path: Path | None
    size: tuple[int, int]
    boxes: Float32[ndarray, "n 4"]
    labels: Int64[ndarray, " n"]
    shapes: tuple[Shape, ...]
    keypoints: Float32[ndarray, "n k 3"] | None
    crowd: Bool[ndarray, " n"]
    annotation_ids: Int64[ndarray, " n"]

    def __len__(self) -> int:
        return len(self.boxes)


class PastFrame(NamedTuple):
    """A frame of a video before an image of the data set: its pixels, and its map of stuff where somebody made one."""

    image: Image
    stuff: UInt8[ndarray, "_ _"] | None


class Dataset(ABC):
    """Images with objects, by number 0..len-1.

    Attributes:
        name: the source as the user wrote it, for messages.
        classes: names of the labels 0..K-1.
        category_ids: the file's own number of each class.
        keypoint_names: names of the keypoints; empty where there are none.
        flip_pairs: keypoints that change places in a mirror.
        skeleton: pairs of keypoints that a limb joins in pictures, counted from 0.
        stuff: the classes of what has no objects; none where the data set does not say what every pixel is.
        skipped: what was left out because it was bad, a sentence each.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    keypoint_names: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    stuff: Stuff = Stuff()
    skipped: list[str]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def record(self, index: int) -> Record:
        """The objects of image `index`."""

    def stated_boxes(self, index: int) -> Float[ndarray, "n 4"]:
        """The boxes of image `index` as the files say them: xyxy, not clipped to the image."""
        return self.record(index).boxes

    @abstractmethod
    def image(self, index: int) -> Image:
        """The pixels of image `index`, upright RGB.

        Raises:
            InputError: the file cannot be read, or has another size than its record.
        """

    def stuff_map(self, index: int) -> UInt8[ndarray, "h w"]:
        """Of every pixel of image `index`: 0 an object of any class, s + 1 stuff of class s, `perpixel.structures.VOID` unknown.

        Raises:
            InputError: the data set has no stuff, or a file cannot be read.
        """
        raise InputError(
            f"{self.name}: says nothing of stuff; name a COCO panoptic json, Cityscapes' split or scenes:200"
        )

    def before(self, index: int, count: int) -> list[PastFrame]:
        """The `count` frames before image `index` in its video, the earliest first.

        Where the video begins later, its first frame stands for those that are missing.

        Raises:
            InputError: the data set knows of no videos, or a file cannot be read.
        """
        raise InputError(f"{self.name}: its images are no frames of videos: set data.frames=1, or name CamVid's split")

    @property
    @abstractmethod
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image."""

    @property
    @abstractmethod
    def object_counts(self) -> Int64[ndarray, " n"]:
        """Objects of every image, crowds not counted."""

    @property
    @abstractmethod
    def box_only_counts(self) -> Int64[ndarray, " n"]:
        """Objects of every image of which only the box is known, crowds not counted."""

    @abstractmethod
    def coco_truth(self) -> dict[str, Any]:
        """Ground truth as COCO's evaluation reads it, with the file's own image, annotation and category numbers."""

    def coco_categories(self) -> list[dict[str, Any]]:
        """The classes as COCO lists them, with keypoints and the skeleton, whose joints it counts from 1."""
        limbs = [[first + 1, second + 1] for first, second in self.skeleton]
        keypoints = {"keypoints": list(self.keypoint_names), "skeleton": limbs} if self.keypoint_names else {}
        names = zip(self.category_ids, self.classes, strict=True)
        return [{"id": number, "name": name, **keypoints} for number, name in names]


def flip_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs of keypoints whose names differ by left and right only, each pair once.

    Understands ``left_eye`` / ``right_eye`` and ``l_eye`` / ``r_eye``, at either end of the name.
    """
    where = {name.lower(): index for index, name in enumerate(names)}
    pairs = []
    for name, index in where.items():
        for left, right in (("left", "right"), ("l_", "r_"), ("_l", "_r")):
            mirrored = _swap(name, left, right)
            if mirrored != name and mirrored in where:
                pairs.append((index, where[mirrored]))
                break
    return tuple(pairs)


def _swap(name: str, left: str, right: str) -> str:
    if left == "left":
        return name.replace(left, right)
    if left == "l_":
        return right + name[2:] if name.startswith(left) else name
    return name[:-2] + right if name.endswith(left) else name


MOST_PIXELS = 178_956_970
"""Of an image: twice what PIL warns of. It opens no larger photo, since a small file could unpack to all of the memory."""


def size_fault(size: tuple[int, int]) -> str | None:
    """What is wrong with a (height, width) that annotations state, or None."""
    if min(size) < 1:
        return "is not above 0"
    if size[0] * size[1] > MOST_PIXELS:
        return f"is more than the {MOST_PIXELS / 1e6:.0f} million pixels an image may have: cut it into tiles"
    return None


def box_fault(box: tuple[float, float, float, float], size: tuple[int, int]) -> str | None:
    """What is wrong with a box (x1, y1, x2, y2) in an image of (height, width), or None.

    A box that reaches past the image is not a fault: it is clipped. One that lies wholly outside is.
    """
    x1, y1, x2, y2 = box
    if not np.isfinite(box).all():
        return "has a coordinate that is not a number"
    if x2 <= x1 or y2 <= y1:
        return "has no width" if x2 <= x1 else "has no height"
    if x2 <= 0 or y2 <= 0 or x1 >= size[1] or y1 >= size[0]:
        return f"lies outside the image ({size[1]}x{size[0]})"
    return None
