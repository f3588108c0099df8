"""The data that passes between layers: ground truth, batches, dense outputs, candidates and detections.

Geometry, once for the whole library: boxes are ``xyxy`` in pixels of the network's input, continuous coordinates, pixel
i covers [i, i + 1). Labels are 0..K-1 without background. These classes hold data; they compute nothing but views,
joins and changes of frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Num, UInt8
from torch import Tensor

# beartype checks method by method and refuses typing.Self there.
Movable = TypeVar("Movable", bound="_Movable")


class _Movable:
    """Tensors of a dataclass moved together."""

    def to(self: Movable, device: torch.device | str, non_blocking: bool = False) -> Movable:
        """The same data on `device`."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor | _Movable):
                return value.to(device, non_blocking=non_blocking)
            if isinstance(value, tuple):
                return tuple(move(item) for item in value)
            return value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})  # pyright: ignore


COCO_KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee"),
    *("left_ankle", "right_ankle"),
)
"""Names of COCO's keypoints of a person, in its order."""

COCO_SKELETON = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10)),
    *((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
"""Pairs of them that a limb joins, counted from 0."""

VOID = 255
"""In a map of stuff: nobody says what the pixel is."""


@dataclass(frozen=True)
class Stuff:
    """The classes of a data set that have no objects, such as sky and grass.

    Attributes:
        names: of the classes 0..S-1.
        category_ids: the data set's own number of each.
    """

    names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Targets(_Movable):
    """Ground truth of one image, in pixels of the network's input.

    Attributes:
        boxes: (n, 4) xyxy.
        labels: (n,) class indices.
        masks: (n, h, w) of the padded input at full resolution, or None where no method asked for masks.
        centers: (n, 2) mass centres of the masks as (x, y) pixel indices (no half added, as the reference implementations
            have them), or None. A row of NaN means an empty mask: it attracts no location by its centre. Where the mask is
            not known this is the box's centre.
        keypoints: (n, k, 3) x, y, visibility (0 absent, 1 hidden, 2 visible), or None.
        ignored: (m, 4) boxes of crowds: neither truth nor background.
        drawn: (n,) whether the mask is known; the row of `masks` is empty where it is not. None means that all of `masks` are.
        stuff: (h, w) of the padded input: 0 where there is an object of any class, s + 1 on stuff of class s, `VOID` where it is
            not known; or None where no method asked for it.
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]
    masks: Bool[Tensor, "n h w"] | None = None
    centers: Float[Tensor, "n 2"] | None = None
    keypoints: Float[Tensor, "n k 3"] | None = None
    ignored: Float[Tensor, "m 4"] | None = None
    drawn: Bool[Tensor, " n"] | None = None
    stuff: UInt8[Tensor, "h w"] | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Batch(_Movable):
    """Images padded to one size, with what is known of them.

    Attributes:
        images: (b, 3, h, w) RGB, 0..255 (uint8, or float after a float resize), zero outside each image's own size.
        sizes: (height, width) of each image inside the padding.
        originals: (height, width) of each image as the user has it, before the resize; boxes of the input scale to it.
        targets: ground truth an image, or None at inference.
        ids: what names each image in messages and results.
        before: of a video, the frames before the images, the earliest first, each a batch of its own with the same geometry;
            where a video has no earlier frame its first one stands again.
        progress: optimiser steps taken so far; what depends on training progress (BoxInst's warm-up) reads it here.
    """

    images: Num[Tensor, "b 3 h w"]
    sizes: tuple[tuple[int, int], ...]
    originals: tuple[tuple[int, int], ...] = ()
    targets: tuple[Targets, ...] | None = None
    ids: tuple[Any, ...] = ()
    before: tuple["Batch", ...] = ()
    progress: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def truth(self) -> tuple[Targets, ...]:
        """The targets, where a caller needs them."""
        if self.targets is None:
            raise ValueError("this batch carries no ground truth: a loss needs Batch.targets")
        return self.targets


@dataclass(frozen=True)
class Locations(_Movable):
    """Every place a box is predicted from, all levels joined: level-major, then y, x, anchor.

    Attributes:
        points: (l, 2) centres in image pixels.
        strides: (l,) pixels an index step of the location's level.
        levels: (l,) position of the level in the pyramid.
        anchors: (l, 4) anchor boxes, or None for an anchor-free detector.
        shapes: (height, width) of each level's map.
        anchors_per_cell: locations that share one cell of a map.
    """

    points: Float[Tensor, "l 2"]
    strides: Float[Tensor, " l"]
    levels: Int[Tensor, " l"]
    anchors: Float[Tensor, "l 4"] | None
    shapes: tuple[tuple[int, int], ...]
    anchors_per_cell: int = 1

    def __len__(self) -> int:
        return len(self.points)

    @property
    def counts(self) -> tuple[int, ...]:
        """Locations of each level."""
        return tuple(h * w * self.anchors_per_cell for h, w in self.shapes)

    def cells(self, location: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Flat index y * width + x of each location on the map of its own level."""
        first = torch.tensor([0, *self.counts], device=location.device).cumsum(0)
        return (location - first[self.levels[location]]) // self.anchors_per_cell


@dataclass(frozen=True)
class DenseOutputs(_Movable):
    """What a box head says at every location, all levels joined.

    Attributes:
        logits: (b, l, k) class logits.
        boxes: (b, l, 4) decoded boxes; nobody downstream needs to know how they are encoded.
        quality: (b, l) logits of centre-ness or IoU, or None for a head without such a branch.
        regression: (b, l, 4) in the head's own units (FCOS: distances over stride; RetinaNet: anchor deltas). Only the
            head's own loss reads it.
        towers: features before the box predictors, a map a level: what instance heads read.
        class_towers: features before the class predictor, a map a level.
        locations: where each row stands.
        backbone: the backbone's maps, finest first (C3 to C5): given to instance heads, which may read them beside the pyramid.
        finer: levels of the pyramid that are finer than the box head's (P2): given to instance heads too.
    """

    logits: Float[Tensor, "b l k"]
    boxes: Float[Tensor, "b l 4"]
    quality: Float[Tensor, "b l"] | None
    regression: Float[Tensor, "b l 4"]
    towers: tuple[Float[Tensor, "b c _ _"], ...]
    class_towers: tuple[Float[Tensor, "b c _ _"], ...]
    locations: Locations
    backbone: tuple[Float[Tensor, "b _ _ _"], ...] = ()
    finer: tuple[Float[Tensor, "b _ _ _"], ...] = ()

    def beside(
        self, backbone: tuple[Float[Tensor, "b _ _ _"], ...], finer: tuple[Float[Tensor, "b _ _ _"], ...]
    ) -> "DenseOutputs":
        """The same with the maps that the box head does not read."""
        return DenseOutputs(
            self.logits,
            self.boxes,
            self.quality,
            self.regression,
            self.towers,
            self.class_towers,
            self.locations,
            backbone,
            finer,
        )


@dataclass(frozen=True)
class Matches(_Movable):
    """Which target each location is trained on.

    Attributes:
        target: (b, l) row of the image's targets, -1 for background, -2 for locations that no loss counts.
    """

    target: Int[Tensor, "b l"]


@dataclass(frozen=True)
class Candidates(_Movable):
    """Locations chosen to stand for objects: positives in training, survivors of NMS at inference; n rows.

    Attributes:
        image, location: (n,) the join keys into dense tables of all levels.
        level, cell: (n,) with `image` the join keys into maps: which level's, and y * width + x on it.
        points, strides: (n, 2), (n,) of the locations.
        boxes: (n, 4) the target's box in training, the predicted one at inference.
        predicted: (n, 4) the predicted box, detached.
        anchors: (n, 4) anchor boxes, or None for an anchor-free detector.
        labels: (n,) the target's class in training, the predicted one at inference.
        scores: (n,) at inference, and in training for policies that rank.
        target: (n,) row of the image's targets, in training.
    """

    image: Int[Tensor, " n"]
    location: Int[Tensor, " n"]
    level: Int[Tensor, " n"]
    cell: Int[Tensor, " n"]
    points: Float[Tensor, "n 2"]
    strides: Float[Tensor, " n"]
    boxes: Float[Tensor, "n 4"]
    predicted: Float[Tensor, "n 4"]
    anchors: Float[Tensor, "n 4"] | None
    labels: Int[Tensor, " n"]
    scores: Float[Tensor, " n"] | None = None
    target: Int[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.image)

    def rows(self, index: Int[Tensor, " m"] | Bool[Tensor, " n"]) -> "Candidates":
        """The chosen rows, in the given order."""
        if index.dtype == torch.bool:  # looked for once, not in every column
            index = index.nonzero().squeeze(1)
        chosen = {f.name: getattr(self, f.name)[index] for f in fields(self) if getattr(self, f.name) is not None}
        return replace(self, **chosen)


@dataclass(frozen=True)
class BoxMasks(_Movable):
    """Mask probabilities in the frame of each box.

    Attributes:
        values: (n, s, s) probabilities over the box, corner to corner.
    """

    values: Float[Tensor, "n s s"]

    def rows(self, index: Tensor) -> "BoxMasks":
        """The chosen instances."""
        return BoxMasks(self.values[index])


@dataclass(frozen=True)
class ImageMasks(_Movable):
    """Mask probabilities in the frame of the padded network input.

    Attributes:
        values: (n, h, w) at `stride` pixels of the input a step.
        stride: pixels of the input an index step.
    """

    values: Float[Tensor, "n h w"]
    stride: int

    def rows(self, index: Tensor) -> "ImageMasks":
        """The chosen instances."""
        return ImageMasks(self.values[index], self.stride)


@dataclass(frozen=True)
class Keypoints(_Movable):
    """Keypoints in pixels of the network's input.

    Attributes:
        values: (n, k, 3) x, y, score.
    """

    values: Float[Tensor, "n k 3"]

    def rows(self, index: Tensor) -> "Keypoints":
        """The chosen instances."""
        return Keypoints(self.values[index])


@dataclass(frozen=True)
class Segments(_Movable):
    """A photo cut into segments that share no pixel, in pixels of the ORIGINAL photo: truth or prediction.

    Attributes:
        map: (h, w) row of the segment that each pixel belongs to; -1 where it belongs to none.
        labels: (n,) 0..K-1 for objects of the K classes, K + s for stuff of class s.
        scores: (n,) of a detection; 1 for stuff and truth.
        crowd: (n,) groups of objects, in truth: neither to be found nor wrong to find.
    """

    map: Int[Tensor, "h w"]
    labels: Int[Tensor, " n"]
    scores: Float[Tensor, " n"]
    crowd: Bool[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Detections(_Movable):
    """What a model found in one image, best first, in pixels of the network's input.

    Attributes:
        boxes: (n, 4) xyxy.
        scores: (n,).
        labels: (n,).
        size: (height, width) of the image inside the padding.
        masks, keypoints: what an instance head added.
        segments: of the photo, from a panoptic model; they stand in pixels of the photo, since their areas are judged there.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    size: tuple[int, int]
    masks: BoxMasks | ImageMasks | None = None
    keypoints: Keypoints | None = None
    segments: Segments | None = None

    def __len__(self) -> int:
        return len(self.boxes)


def pad_images(images: Sequence[Num[Tensor, "3 _ _"]], divisor: int) -> Num[Tensor, "b 3 h w"]:
    """Images in the top left corners of one zero tensor whose sides are multiples of `divisor`."""
    height = -(-max(image.shape[1] for image in images) // divisor) * divisor
    width = -(-max(image.shape[2] for image in images) // divisor) * divisor
    out = images[0].new_zeros((len(images), 3, height, width))
    for row, image in zip(out, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return out
