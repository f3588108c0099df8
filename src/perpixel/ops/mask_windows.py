"""Masks of the original image, each only in the window where it can be: as a rule a small part of the image.

Whoever needs masks in pixels of the image goes through `windows`, whatever frame a model predicts them in: no full-size float
mask is made, and no more masks exist at a time than the caller keeps.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from perpixel.ops.axes import at_pixels_of_photo, between
from perpixel.ops.masks import tents
from perpixel.ops.runs import Run, encode_window
from perpixel.structures import BoxMasks, ImageMasks

THRESHOLD = 0.5
GROUP = 32
"""Pixels of an axis that are computed together from the few cells they lie between."""
AT_ONCE = 2**22
"""Pixels that are brought from the device together, a byte each."""


class Window(NamedTuple):
    """Rows and columns of the image, and which of their pixels belong to the mask; all others do not."""

    y: slice
    x: slice
    inside: Bool[Tensor, "h w"]


def windows(
    masks: BoxMasks | ImageMasks,
    boxes: Float[Tensor, "n 4"],
    input_size: tuple[int, int],
    original_size: tuple[int, int],
) -> Iterator[Window]:
    """The mask of each instance, in pixels of the original image.

    Args:
        masks: probabilities of n instances in either frame. A pixel belongs to a mask where its probability is more than a half
            (`ImageMasks`) or at least a half (`BoxMasks`), as the methods' references have it.
        boxes: (n, 4) in pixels of the original image; box masks are spread over them.
        input_size: (height, width) of the image inside the network's padded input.
        original_size: (height, width) of the original image.
    """
    if isinstance(masks, ImageMasks):
        return _of_image_masks(masks.values, masks.stride, input_size, original_size)
    return _of_box_masks(masks.values, boxes, original_size)


def encoded(
    masks: BoxMasks | ImageMasks,
    boxes: Float[Tensor, "n 4"],
    input_size: tuple[int, int],
    original_size: tuple[int, int],
) -> Iterator[Run]:
    """Run lengths of each instance's mask of the original image; arguments as `windows` has them."""
    for some in _gathered(windows(masks, boxes, input_size, original_size)):
        pixels = torch.cat([inside.T.flatten() for _, _, inside in some]).cpu().numpy()
        ends = np.cumsum([inside.numel() for _, _, inside in some])
        for (y, x, inside), columns in zip(some, np.split(pixels, ends[:-1]), strict=True):
            yield encode_window(columns.reshape(inside.T.shape).T, y.start, x.start, original_size)


def _gathered(found: Iterator[Window]) -> Iterator[list[Window]]:
    """Windows of `AT_ONCE` pixels or a few more: the host waits for a GPU once for all of them, not once a mask."""
    some, pixels = [], 0
    for window in found:
        some.append(window)
        pixels += window.inside.numel()
        if pixels >= AT_ONCE:
            yield some
            some, pixels = [], 0
    if some:
        yield some


def each_mask(
    masks: BoxMasks | ImageMasks,
    boxes: Float[Tensor, "n 4"],
    input_size: tuple[int, int],
    original_size: tuple[int, int],
) -> Iterator[Bool[Tensor, "h w"]]:
    """The masks one after the other at full size; arguments as `windows` has them."""
    for y, x, inside in windows(masks, boxes, input_size, original_size):
        out = torch.zeros(original_size, dtype=torch.bool, device=inside.device)
        out[y, x] = inside
        yield out


def _of_image_masks(
    values: Float[Tensor, "n h w"], stride: int, input_size: tuple[int, int], original_size: tuple[int, int]
) -> Iterator[Window]:
    """`aligned_bilinear` to the padded input, crop to the image, bilinear to the original: where a mask can pass the threshold.

    Both interpolations are separable and their weights add up to 1, so a pixel can pass only if a value it is made from does.
    """
    down = _Axis(values.shape[1], stride, input_size[0], original_size[0], values.device)
    across = _Axis(values.shape[2], stride, input_size[1], original_size[1], values.device)
    rows, columns = ((values.amax(dim=dim) > THRESHOLD).cpu().numpy() for dim in (2, 1))
    for mine, row, column in zip(values, rows, columns, strict=True):
        vertical, horizontal = down.groups(row), across.groups(column)
        cells = across.cells(horizontal)
        tall = down.spread(mine[:, cells].float(), vertical, 0)
        # Columns first, then pixels down each: the order in which run lengths go.
        inside = across.spread(tall.T, horizontal, cells.start) > THRESHOLD
        yield Window(down.pixels(vertical), across.pixels(horizontal), inside.T)


class _Axis:
    """How the pixels of the original are made from cells along one axis, in groups of `GROUP` neighbouring pixels."""

    def __init__(self, cells: int, stride: int, inside: int, pixels: int, device: torch.device):
        # Pixel p of the input lies (p - stride // 2) / stride cells from the first one (`aligned_bilinear`).
        weights = at_pixels_of_photo(
            between((torch.arange(inside, device=device) - stride // 2) / stride, cells), pixels
        )
        self.count = pixels
        grouped = functional.pad(weights, (0, 0, 0, -pixels % GROUP)).unflatten(0, (-1, GROUP))
        self.reads = (grouped > 0).any(dim=1).cpu().numpy()
        first, last = self.reads.argmax(axis=1), cells - self.reads[:, ::-1].argmax(axis=1)
        self.reach = int((last - first).max())
        self.first = np.minimum(first, cells - self.reach)
        self.index = torch.from_numpy(self.first).to(device)[:, None] + torch.arange(self.reach, device=device)
        self.weights = grouped.gather(2, self.index[:, None].expand(-1, GROUP, -1))

    def groups(self, high: Bool[np.ndarray, " cells"]) -> slice:
        """The groups that read a cell which passes the threshold; none where none does."""
        return _span(np.any(self.reads[:, _span(high)], axis=1))

    def cells(self, groups: slice) -> slice:
        """The cells that these groups are made from."""
        some = self.first[groups]
        return slice(int(some[0]), int(some[-1]) + self.reach) if len(some) else slice(0, 0)

    def pixels(self, groups: slice) -> slice:
        """The pixels of these groups."""
        return slice(min(groups.start * GROUP, self.count), min(groups.stop * GROUP, self.count))

    def spread(self, values: Float[Tensor, "cells m"], groups: slice, start: int) -> Float[Tensor, "pixels m"]:
        """The pixels of these groups from the cells, of which `values` holds those from `start` on."""
        pixels = torch.bmm(self.weights[groups], values[self.index[groups] - start])
        return pixels.flatten(0, 1)[: self.count - groups.start * GROUP]


def _span(present: Bool[np.ndarray, " n"]) -> slice:
    """From the first to the last that is true."""
    at = np.flatnonzero(present)
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0)


def _of_box_masks(
    values: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], size: tuple[int, int]
) -> Iterator[Window]:
    """`spread_over_boxes` where it is not 0: in the box and half a cell around it."""
    low, high = boxes[:, :2], boxes[:, 2:]
    margin = (high - low) / torch.tensor([values.shape[2], values.shape[1]], device=boxes.device) / 2
    limit = torch.tensor([size[1], size[0]], device=boxes.device)
    first = (low - margin).floor().clamp(min=0).minimum(limit).long().tolist()
    last = (high + margin).ceil().clamp(min=0).minimum(limit).long().tolist()
    for mine, box, (left, top), (right, bottom) in zip(values.float(), boxes, first, last, strict=True):
        y, x = slice(top, max(top, bottom)), slice(left, max(left, right))
        down = tents(box[1:2], box[3:4], y, mine.shape[0])[0]
        across = tents(box[0:1], box[2:3], x, mine.shape[1])[0]
        yield Window(y, x, (across @ (down @ mine).T >= THRESHOLD).T)
