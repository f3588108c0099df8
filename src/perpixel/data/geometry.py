"""One affine map per sample: resize, scale jitter, crop and mirror composed, applied once to pixels and objects alike.

Coordinates are continuous, pixel i covers [i, i + 1). A point (x, y) of the original image lands on
``matrix @ (x, y, 1)`` of the input. Images are resampled by PIL's bilinear filter, whose support grows with the
reduction, so that shrinking does not alias; training, evaluation and prediction use this same filter.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64
from numpy import ndarray
from PIL import Image as Pillow

from perpixel.data.dataset import Image, Polygons, Rle, Shape
from perpixel.data.masks import decode, draw_polygons
from perpixel.data.settings import Augment


@dataclass(frozen=True)
class Placement:
    """How an original image becomes a network input: it is resized, a window is cut from it and perhaps mirrored.

    Attributes:
        original: (height, width) of the original image.
        resized: (height, width) after the resize.
        window: (top, left, height, width) of the part that is kept, in whole pixels of the resized image.
        mirrored: whether left and right change places.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    window: tuple[int, int, int, int]
    mirrored: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input."""
        return self.window[2:]

    @property
    def matrix(self) -> Float64[ndarray, "2 3"]:
        """Original to input coordinates."""
        top, left, _, width = self.window
        scale_y, scale_x = self.resized[0] / self.original[0], self.resized[1] / self.original[1]
        if self.mirrored:
            return np.array([[-scale_x, 0, width + left], [0, scale_y, -top]], dtype=np.float64)
        return np.array([[scale_x, 0, -left], [0, scale_y, -top]], dtype=np.float64)

    def image(self, image: Image) -> Image:
        """The input's pixels."""
        top, left, height, width = self.window
        if self.resized == self.original:
            out = image[top : top + height, left : left + width].copy()
        else:
            step_y, step_x = self.original[0] / self.resized[0], self.original[1] / self.resized[1]
            source = (left * step_x, top * step_y, (left + width) * step_x, (top + height) * step_y)
            source = (source[0], source[1], min(source[2], self.original[1]), min(source[3], self.original[0]))
            photo = Pillow.fromarray(image)
            out = np.array(photo.resize((width, height), Pillow.Resampling.BILINEAR, box=source))
        return np.ascontiguousarray(out[:, ::-1] if self.mirrored else out)

    def points(self, points: Float64[ndarray, "*n 2"] | Float32[ndarray, "*n 2"]) -> Float64[ndarray, "*n 2"]:
        """Points of the original image (x, y) in the input."""
        matrix = self.matrix
        return points @ matrix[:, :2].T + matrix[:, 2]

    def boxes(self, boxes: Float32[ndarray, "n 4"]) -> Float64[ndarray, "n 4"]:
        """Boxes of the original image (xyxy) in the input, not clipped."""
        corners = self.points(boxes.astype(np.float64).reshape(-1, 2, 2))
        return np.concatenate([corners.min(1), corners.max(1)], axis=1)

    def keypoints(
        self, keypoints: Float32[ndarray, "n k 3"], flip_pairs: tuple[tuple[int, int], ...]
    ) -> Float32[ndarray, "n k 3"]:
        """Keypoints in the input; a mirror exchanges left and right, those outside the input become absent (all zero)."""
        out = np.concatenate([self.points(keypoints[..., :2]), keypoints[..., 2:]], axis=2)
        if self.mirrored and flip_pairs:
            left, right = np.array(flip_pairs).T
            out[:, np.r_[left, right]] = out[:, np.r_[right, left]]
        height, width = self.size
        x, y, visibility = out[..., 0], out[..., 1], out[..., 2]
        out[(visibility <= 0) | (x < 0) | (y < 0) | (x >= width) | (y >= height)] = 0
        return out.astype(np.float32)

    def mask(self, shape: Polygons | Rle) -> Bool[ndarray, "h w"]:
        """A mask geometry drawn on the input's grid: polygons as moved points, run-length codes by the nearest pixel."""
        if not isinstance(shape, Rle):
            return draw_polygons(tuple(self.points(polygon) for polygon in shape), self.size)
        mask = decode(shape)
        inverse = 1 / self.matrix[[0, 1], [0, 1]]
        offset = self.matrix[:, 2]
        rows, columns = (
            np.clip(np.floor((np.arange(self.size[axis]) + 0.5 - offset[1 - axis]) * inverse[1 - axis]), 0, limit - 1)
            for axis, limit in ((0, self.original[0]), (1, self.original[1]))
        )
        return mask[np.ix_(rows.astype(np.int64), columns.astype(np.int64))]


def resized_size(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """(height, width) after the short side is brought to `short_side`, unless the long one would pass `max_side`."""
    scale = min(short_side / min(size), max_side / max(size))
    return _scaled(size, scale)


def whole(size: tuple[int, int], resized: tuple[int, int]) -> Placement:
    """A plain resize."""
    return Placement(size, resized, (0, 0, *resized))


def draw_placement(size: tuple[int, int], augment: Augment, random: np.random.Generator) -> Placement:
    """A random placement of an image of (height, width). Draws the same count of numbers whatever the settings."""
    short_side = augment.short_sides[int(random.integers(len(augment.short_sides)))]
    jitter, keep_y, keep_x, at_y, at_x, mirror = random.random(6)
    low, high = augment.scale_jitter
    scale = min(short_side / min(size), augment.max_side / max(size)) * (low + (high - low) * jitter)
    resized = _scaled(size, scale)
    sides = []
    for side, keep in ((resized[0], keep_y), (resized[1], keep_x)):
        kept = max(1, round(side * (augment.crop + (1 - augment.crop) * keep)))
        sides.append(min(kept, augment.crop_size or kept))
    top, left = int(at_y * (resized[0] - sides[0] + 1)), int(at_x * (resized[1] - sides[1] + 1))
    return Placement(size, resized, (top, left, sides[0], sides[1]), bool(mirror < augment.flip))


@dataclass(frozen=True)
class Placed:
    """Objects of one image in the input.

    Attributes:
        rows: (n,) which of the given objects are left.
        boxes: (n, 4) xyxy, clipped to the input.
        masks: (n, h, w) on the input's grid, or None.
    """

    rows: ndarray
    boxes: Float32[ndarray, "n 4"]
    masks: Bool[ndarray, "n h w"] | None


def place_objects(
    placement: Placement,
    boxes: Float32[ndarray, "n 4"],
    shapes: tuple[Shape, ...],
    *,
    masks: bool,
    min_visible: float = 0.0,
    min_side: float = 0.0,
) -> Placed:
    """Boxes, and masks if asked for, in the input; what the crop leaves too little of is dropped.

    Where the crop cuts an object whose mask is known, its box shrinks to what is left of the mask (to whole pixels of
    the input), as an annotator would have drawn it: the clipped box of a cut bicycle may reach far past its visible
    wheel. Objects of which only the box is known have that box as mask.

    Args:
        placement: original to input.
        boxes: in the original image.
        shapes: mask geometries, a row each.
        masks: whether to draw masks of all objects.
        min_visible: least share of the box's area that the crop must leave.
        min_side: least width and height in the input.
    """
    height, width = placement.size
    moved = placement.boxes(boxes)
    clipped = np.clip(moved, 0, [width, height, width, height])
    cut = (np.abs(clipped - moved) > 1e-3).any(1)
    share = _area(clipped) / np.maximum(_area(moved), 1e-9)
    keep = (share >= min_visible) & (share > 0)
    drawn: dict[int, ndarray] = {}
    for row in np.flatnonzero(keep):
        shape = shapes[row]
        if shape is None or not (masks or cut[row]):
            continue
        drawn[row] = placement.mask(shape)
        if cut[row]:
            clipped[row] = _within(clipped[row], drawn[row])
    keep &= (clipped[:, 2:] - clipped[:, :2] >= max(min_side, 1e-6)).all(1)
    rows = np.flatnonzero(keep)
    dense = None
    if masks:
        dense = np.zeros((len(rows), height, width), dtype=bool)
        for mask, row in zip(dense, rows, strict=True):
            mask[:] = drawn[row] if row in drawn else draw_polygons((_corners(clipped[row]),), (height, width))
    return Placed(rows, clipped[rows].astype(np.float32), dense)


def _within(box: ndarray, mask: ndarray) -> ndarray:
    """`box` shrunk to the pixels of `mask`; without pixels nothing is left of it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4)
    low = np.maximum(box[:2], [columns[0], rows[0]])
    return np.concatenate([low, np.maximum(low, np.minimum(box[2:], [columns[-1] + 1, rows[-1] + 1]))])


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def _area(boxes: ndarray) -> ndarray:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _corners(box: ndarray) -> ndarray:
    x1, y1, x2, y2 = box.astype(np.float64)
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
