"""Masks as COCO's run lengths."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from hotcoco import mask as codec
from jaxtyping import Bool
from torch import Tensor

Run = dict[str, Any]
"""A mask as COCO's run lengths: ``{"size": [h, w], "counts": str}``; it goes into JSON as it is."""


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
