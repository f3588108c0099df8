"""One affine map per sample: resize, scale jitter, crop and mirror composed, applied once to pixels and objects alike.

Coordinates are continuous, pixel i covers [i, i + 1). A point (x, y) of the original image lands on
``matrix @ (x, y, 1)`` of the input. Images are resampled by PIL's bilinear filter, whose support grows with the
reduction, so that shrinking does not alias; training, evaluation and prediction use this same filter.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from numpy import ndarray
from PIL import Image as Pillow

from perpixel.data.dataset import Image, Polygons, Rle, Shape
from perpixel.data.masks import EMPTY, Patch, patch_code, patch_polygons
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

    def classes(self, values: UInt8[ndarray, "_ _"]) -> UInt8[ndarray, "_ _"]:
        """A map of classes on the input's grid, each pixel's from the nearest pixel of the original image."""
        rows, columns = (self._nearest(axis, 0, values.shape[1 - axis])[1] for axis in (1, 0))
        return np.ascontiguousarray(values[np.ix_(rows, columns)])

    def patch(self, shape: Polygons | Rle) -> Patch:
        """A mask geometry on the input's grid: polygons as moved points, run-length codes by the nearest pixel."""
        if not isinstance(shape, Rle):
            return patch_polygons(tuple(self.points(polygon) for polygon in shape), self.size)
        patch = patch_code(shape)
        rows = self._nearest(1, patch.top, patch.pixels.shape[0])
        columns = self._nearest(0, patch.left, patch.pixels.shape[1])
        if not len(rows[0]) or not len(columns[0]):
            return EMPTY
        return _trimmed(int(rows[0][0]), int(columns[0][0]), patch.pixels[np.ix_(rows[1], columns[1])])

    def _nearest(self, axis: int, start: int, length: int) -> tuple[ndarray, ndarray]:
        """Pixels of the input along x (0) or y (1) whose centres fall on [start, start + length), and on which of these."""
        centers = np.arange(self.size[1 - axis]) + 0.5
        source = np.floor((centers - self.matrix[axis, 2]) / self.matrix[axis, axis]).astype(np.int64) - start
        inside = np.flatnonzero((source >= 0) & (source < length))
        return inside, source[inside]


def resized_size(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """(height, width) after the short side is brought to `short_side`, unless the long one would pass `max_side`."""
    scale = min(short_side / min(size), max_side / max(size))
    return _scaled(size, scale)


def resized_inside(size: tuple[int, int], limits: tuple[int, int]) -> tuple[int, int]:
    """(height, width) after an image is brought to the largest size inside `limits` (height, width)."""
    return _scaled(size, min(limits[0] / size[0], limits[1] / size[1]))


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
        masks: one of each on the input's grid, or None where none were asked for.
    """

    rows: ndarray
    boxes: Float32[ndarray, "n 4"]
    masks: tuple[Patch, ...] | None


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
    wheel. Objects of which only the box is known have an empty mask.

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
    cut = np.any(np.abs(clipped - moved) > 1e-3, axis=1)
    share = _area(clipped) / np.maximum(_area(moved), 1e-9)
    keep = (share >= min_visible) & (share > 0)
    patches: dict[int, Patch] = {}
    for row in np.flatnonzero(keep).tolist():
        shape = shapes[row]
        if shape is not None and (masks or cut[row]):
            patches[row] = placement.patch(shape)
            if cut[row]:
                clipped[row] = _within(clipped[row], patches[row])
        elif masks:
            patches[row] = EMPTY
    keep &= (clipped[:, 2:] - clipped[:, :2] >= max(min_side, 1e-6)).all(1)
    rows = np.flatnonzero(keep)
    kept = tuple(patches[row] for row in rows.tolist()) if masks else None
    return Placed(rows, clipped[rows].astype(np.float32), kept)


def _within(box: ndarray, patch: Patch) -> ndarray:
    """`box` shrunk to the pixels of a mask; without pixels nothing is left of it."""
    extent = np.array(patch.box, dtype=np.float64)
    low = np.maximum(box[:2], extent[:2])
    return np.concatenate([low, np.maximum(low, np.minimum(box[2:], extent[2:]))])


def _trimmed(top: int, left: int, pixels: Bool[ndarray, "h w"]) -> Patch:
    """A mask without empty rows and columns around it."""
    rows, columns = (np.flatnonzero(np.any(pixels, axis=axis)).tolist() for axis in (1, 0))
    if not rows:
        return EMPTY
    part = np.asarray(pixels)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Patch(top + rows[0], left + columns[0], part)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def _area(boxes: ndarray) -> ndarray:
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
