"""From mask probabilities in the frame of a box or of the network's input to masks of the original image.

Both frames go through chunks: a full-size float mask exists for a few instances at a time, so memory does not grow with
the number of instances. `encoded` never even holds the boolean masks of all instances.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from hotcoco import mask as codec
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align

from perpixel.structures import BoxMasks, ImageMasks

Run = dict[str, Any]
"""A mask as COCO's run lengths: ``{"size": [h, w], "counts": str}``; it goes into JSON as it is."""

CHUNK_BYTES = 48 * 2**20


def paste_box_masks(
    values: Float[Tensor, "n s s"],
    boxes: Float[Tensor, "n 4"],
    size: tuple[int, int],
    threshold: float = 0.5,
    chunk_bytes: int = CHUNK_BYTES,
) -> Bool[Tensor, "n h w"]:
    """Masks of the image from values over each box, corner to corner.

    Value (i, j) stands at the centre of its cell of the box; between centres it is bilinear, beyond the outermost
    centres it falls to 0 within one cell. A pixel belongs to the mask where the value at its centre is >= `threshold`.

    Args:
        values: (n, s, s) probabilities.
        boxes: (n, 4) xyxy in pixels of the image.
        size: (height, width) of the image.
        threshold: smallest probability inside the mask.
        chunk_bytes: memory for float masks of full size at any time.
    """
    height, width = size
    out = torch.zeros((len(values), height, width), dtype=torch.bool, device=values.device)
    for rows in _chunks(len(values), 4 * height * width, chunk_bytes):
        out[rows] = spread_over_boxes(values[rows], boxes[rows], size) >= threshold
    return out


def spread_over_boxes(
    values: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """The values at every pixel of the image, as `paste_box_masks` says, all instances at once."""
    vertical = _tents(boxes[:, 1], boxes[:, 3], size[0], values.shape[1])
    horizontal = _tents(boxes[:, 0], boxes[:, 2], size[1], values.shape[2])
    # Bilinear interpolation is separable: two small matrix products instead of a gather a pixel.
    return vertical @ values.float() @ horizontal.mT


def _tents(
    low: Float[Tensor, " n"], high: Float[Tensor, " n"], pixels: int, cells: int
) -> Float[Tensor, "n pixels cells"]:
    """Weight of each cell at each pixel's centre along one axis: a tent of one cell's half width around its centre."""
    centers = torch.arange(pixels, device=low.device) + 0.5
    extent = (high - low).clamp(min=torch.finfo(torch.float32).eps)
    position = (centers - low[:, None]) / extent[:, None] * cells - 0.5
    distance = (position[:, :, None] - torch.arange(cells, device=low.device)).abs()
    return (1 - distance).clamp(min=0)


def crop_masks(
    masks: Bool[Tensor, "m h w"], rows: Int[Tensor, " n"], boxes: Float[Tensor, "n 4"], size: int
) -> Bool[Tensor, "n s s"]:
    """What `paste_box_masks` should have been given: each box cut into `size` x `size` cells, true where half a cell is mask.

    Args:
        masks: (m, h, w) of one image.
        rows: (n,) the mask that each box crops.
        boxes: (n, 4) xyxy in pixels of the image; what lies outside the image is no mask.
        size: cells a side.
    """
    # RoIAlign continues an image by one pixel past its border: a frame of nothing keeps masks that touch it from growing.
    framed = functional.pad(masks[:, None].to(boxes.dtype), (1, 1, 1, 1))
    regions = torch.cat([rows[:, None].to(boxes.dtype), boxes + 1], dim=1)
    covered = roi_align(framed, regions, size, aligned=True)
    return covered[:, 0] >= 0.5


def edge_pixels(masks: Bool[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """Pixels that have one of the other kind among their 8 neighbours: the mask's outline, both its sides.

    Past the border of the map nothing is known, so a mask that touches it has no edge there.
    """
    values = masks[:, None].float()
    highest = functional.max_pool2d(values, 3, stride=1, padding=1)
    lowest = -functional.max_pool2d(-values, 3, stride=1, padding=1)
    return (highest > lowest)[:, 0]


def aligned_bilinear(values: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "n c h2 w2"]:
    """Maps enlarged `factor` times so that value (i, j) lands on the point (i + 0.5) * factor of a location.

    Replicates the last row and column, interpolates with aligned corners to factor * n + 1, shifts by factor // 2 with
    replication at the top and left, and crops (CondInst's reference implementation).
    """
    if factor == 1:
        return values
    height, width = values.shape[2:]
    padded = functional.pad(values, (0, 1, 0, 1), mode="replicate")
    size = (factor * height + 1, factor * width + 1)
    large = functional.interpolate(padded, size=size, mode="bilinear", align_corners=True)
    shifted = functional.pad(large, (factor // 2, 0, factor // 2, 0), mode="replicate")
    return shifted[:, :, : factor * height, : factor * width]


def probabilities_in_input(
    masks: BoxMasks | ImageMasks, boxes: Float[Tensor, "n 4"], size: tuple[int, int]
) -> Float[Tensor, "n h w"]:
    """Mask probabilities at every pixel of the network's input, all instances at once: what an exported file ends in.

    Args:
        masks: of n instances in either frame.
        boxes: (n, 4) in pixels of the input; box masks are spread over them.
        size: (height, width) of the input inside its padding.
    """
    if isinstance(masks, BoxMasks):
        return spread_over_boxes(masks.values, boxes, size)
    return aligned_bilinear(masks.values[:, None].float(), masks.stride)[:, 0, : size[0], : size[1]]


def resize_image_masks(
    values: Float[Tensor, "n h w"],
    stride: int,
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    threshold: float = 0.5,
    chunk_bytes: int = CHUNK_BYTES,
) -> Bool[Tensor, "n h2 w2"]:
    """Masks of the original image from probabilities over the padded network input.

    `aligned_bilinear` to the padded input, crop to the image inside the padding, bilinear to the original, threshold.

    Args:
        values: (n, h, w) probabilities at `stride` pixels of the input a step.
        stride: pixels of the input an index step.
        input_size: (height, width) of the image inside the padding.
        original_size: (height, width) of the result.
        threshold: masks hold what is strictly larger.
        chunk_bytes: memory for float masks of full size at any time.
    """
    out = torch.zeros((len(values), *original_size), dtype=torch.bool, device=values.device)
    padded = values.shape[1] * values.shape[2] * stride**2
    # Three full-size copies live at once: enlarged, its shifted twin, the resized one.
    for rows in _chunks(len(values), 4 * (2 * padded + original_size[0] * original_size[1]), chunk_bytes):
        large = aligned_bilinear(values[rows, None].float(), stride)[:, :, : input_size[0], : input_size[1]]
        out[rows] = (
            functional.interpolate(large, size=original_size, mode="bilinear", align_corners=False)[:, 0] > threshold
        )
    return out


def resize_where_masked(
    values: Float[Tensor, "n h w"],
    stride: int,
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    threshold: float = 0.5,
) -> Bool[Tensor, "n h2 w2"]:
    """The masks of `resize_image_masks`, computed only where a mask can be: as a rule a small part of the image.

    Both interpolations are separable, so an axis is one matrix whose rows are weights that add up to 1: a pixel can pass the
    threshold only if one of the few values it is made from does. What lies outside those pixels is not computed.
    Results are the same up to rounding at the threshold. Arguments as there.
    """
    out = torch.zeros((len(values), *original_size), dtype=torch.bool, device=values.device)
    windows = _windows(values, stride, input_size, original_size, threshold)
    for row, (y, x, inside) in zip(out, windows, strict=True):
        row[y, x] = inside
    return out


def _windows(
    values: Float[Tensor, "n h w"],
    stride: int,
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    threshold: float = 0.5,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Of each mask the rows and columns of the original image that it can touch, and the mask there."""
    down = _axis_weights(values.shape[1], stride, input_size[0], original_size[0], values.device)
    across = _axis_weights(values.shape[2], stride, input_size[1], original_size[1], values.device)
    high = values > threshold
    vertical = _Reach(down).of(high.any(dim=2))
    horizontal = _Reach(across).of(high.any(dim=1))
    for mine, (y, i), (x, j) in zip(values, vertical, horizontal, strict=True):
        yield y, x, (down[y, i] @ mine[i, j].float() @ across[x, j].mT) > threshold


def _axis_weights(
    cells: int, stride: int, inside: int, pixels: int, device: torch.device
) -> Float[Tensor, "pixels cells"]:
    """What `resize_image_masks` does along one axis, as a matrix: its effect on each unit vector."""
    units = torch.eye(cells, device=device)[:, None, :, None]
    large = aligned_bilinear(units, stride)[:, :, :inside, :1]
    return functional.interpolate(large, size=(pixels, 1), mode="bilinear", align_corners=False)[:, 0, :, 0].T


class _Reach:
    """From the values along an axis that pass a threshold to the pixels they touch, and on to all values those are made from."""

    def __init__(self, weights: Float[Tensor, "pixels cells"]):
        self.touches = weights.cpu().numpy() > 0

    def of(self, high: Bool[Tensor, "n cells"]) -> Iterator[tuple[slice, slice]]:
        """Pixels and values of each row, as slices; empty where nothing passes."""
        for passing in high.cpu().numpy():
            pixels = _span(np.any(self.touches[:, _span(passing)], axis=1))
            yield pixels, _span(np.any(self.touches[pixels], axis=0))


def _span(present: Bool[np.ndarray, " n"]) -> slice:
    """From the first to the last that is true."""
    at = np.flatnonzero(present)
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0)


def encode(masks: Bool[Tensor, "n h w"] | Bool[np.ndarray, "n h w"]) -> list[Run]:
    """Run lengths of each mask, in COCO's compressed form."""
    array = masks.cpu().numpy() if isinstance(masks, Tensor) else masks
    runs = cast(list[Run], codec.encode(array.transpose(1, 2, 0)))
    return [{"size": run["size"], "counts": run["counts"].decode("ascii")} for run in runs]


def encode_window(inside: Bool[np.ndarray, "h w"], top: int, left: int, size: tuple[int, int]) -> Run:
    """What `encode` says of a mask of (height, width) `size` that lies in a window whose upper left corner is (top, left).

    Runs go down the columns, so a run that ends at the bottom of a column and goes on at the top of the next is one run.
    """
    height, width = size
    framed = np.zeros((inside.shape[1], inside.shape[0] + 2), bool)
    framed[:, 1:-1] = inside.T
    column, row = np.divmod(np.flatnonzero(framed[:, 1:] != framed[:, :-1]), inside.shape[0] + 1)
    at = (left + column) * height + top + row
    begins, ends = at[0::2], at[1::2]
    first, last = np.ones(len(begins), bool), np.ones(len(ends), bool)
    first[1:] = last[:-1] = begins[1:] != ends[:-1]
    begins, ends = begins[first], ends[last]
    counts = np.diff(np.stack([begins, ends], 1).ravel(), prepend=0, append=height * width).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    run = cast(Run, codec.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    return {"size": [height, width], "counts": run["counts"].decode("ascii")}


def decode(runs: Sequence[Run], size: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    """The masks of `encode`; `size` (height, width) gives the shape where there is no mask."""
    out = np.zeros((len(runs), *size), dtype=bool)
    for row, run in zip(out, runs, strict=True):
        row[:] = codec.decode(run)
    return out


def encoded(
    masks: BoxMasks | ImageMasks,
    boxes: Float[Tensor, "n 4"],
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[Run]:
    """Run lengths of each instance's mask of the original image: no full-size mask of more than a few instances exists.

    Args:
        masks: probabilities of n instances in either frame.
        boxes: (n, 4) in pixels of the original image; box masks are spread over them.
        input_size: (height, width) of the image inside the network's padded input.
        original_size: (height, width) of the original image.
        chunk_bytes: memory for full-size box masks at any time. Image masks take a window of one at a time.
    """
    if isinstance(masks, ImageMasks):
        for y, x, inside in _windows(masks.values, masks.stride, input_size, original_size):
            yield encode_window(inside.cpu().numpy(), y.start, x.start, original_size)
        return
    # A float and a boolean of each pixel.
    for rows in _chunks(len(masks.values), 5 * original_size[0] * original_size[1], chunk_bytes):
        yield from encode(paste_box_masks(masks.values[rows], boxes[rows], original_size, chunk_bytes=chunk_bytes))


def _chunks(count: int, bytes_each: int, chunk_bytes: int) -> Iterator[slice]:
    step = max(1, chunk_bytes // max(1, bytes_each))
    return (slice(start, start + step) for start in range(0, count, step))
