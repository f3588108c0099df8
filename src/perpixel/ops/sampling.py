"""Features at candidates only: what keeps per-instance work off the dense maps."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from perpixel.ops.groups import rows_by
from perpixel.structures import Candidates


def patches_at(
    maps: Sequence[Float[Tensor, "b c _ _"]], candidates: Candidates, size: int = 3
) -> Float[Tensor, "n c s s"]:
    """The `size` x `size` neighbourhood of each candidate on its level's map, zero outside the map.

    A convolution of the patches (`conv_at`) equals the dense convolution followed by a gather, and skips the ~20,000
    locations that are no candidates (PointINS, section 3.3).
    """
    return patches_around(maps, candidates.image, candidates.level, candidates.cell, size)


def patches_around(
    maps: Sequence[Float[Tensor, "b c _ _"]],
    image: Int[Tensor, " n"],
    level: Int[Tensor, " n"],
    cell: Int[Tensor, "n *cells"],
    size: int,
) -> Float[Tensor, "n *cells c s s"]:
    """The `size` x `size` neighbourhood of each cell on its level's map, zero outside the map.

    Args:
        maps: a map a level.
        image, level, cell: the join keys into them; a cell is y * width + x, and a row may have several, all on its one level.
        size: cells a side.
    """
    patches = maps[0].new_zeros((*cell.shape, maps[0].shape[1], size, size))
    reach = torch.arange(size, device=maps[0].device) - size // 2
    for values, rows in zip(maps, rows_by(level, len(maps)), strict=True):
        height, width = values.shape[2:]
        y = cell[rows] // width
        x = cell[rows] - y * width
        near_y, near_x = (y[..., None] + reach)[..., :, None], (x[..., None] + reach)[..., None, :]
        inside = (near_y >= 0) & (near_y < height) & (near_x >= 0) & (near_x < width)
        # The map itself is read, not a padded copy. Advanced indices around a slice come first: (rows, ..., s, s, c).
        at = (
            image[rows][(..., *[None] * (cell.ndim + 1))],
            slice(None),
            near_y.clamp(0, height - 1),
            near_x.clamp(0, width - 1),
        )
        found = torch.where(inside[..., None], values[at], 0)
        patches = patches.index_copy(0, rows, found.movedim(-1, -3).to(patches.dtype))
    return patches


def conv_at(
    patches: Float[Tensor, "n c s s"], weight: Float[Tensor, "out c s s"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "n out"]:
    """What a convolution with `weight` gives at the middle of each patch: one matrix product, in the weight's precision."""
    return F.linear(patches.flatten(1).to(weight.dtype), weight.flatten(1), bias)


def in_portions(
    candidates: Candidates, at_once: int, work: Callable[[Int[Tensor, " _"]], Float[Tensor, "_ ..."]]
) -> Float[Tensor, "n ..."]:
    """What `work` gives for the candidates' row numbers, at most `at_once` together; without gradients the result exists once."""
    first, *others = portions(candidates, at_once)
    values = work(first)
    if not others or torch.is_grad_enabled():
        return torch.cat([values, *map(work, others)]) if others else values
    result = values.new_empty((candidates.image.shape[0], *values.shape[1:]))
    result[first] = values
    for rows in others:
        result[rows] = work(rows)
    return result


def portions(candidates: Candidates, at_once: int) -> tuple[Int[Tensor, " _"], ...]:
    """The candidates' row numbers, at most `at_once` together, for work whose memory must not grow with their number.

    A graph that is being exported cannot loop as often as its input demands: there it is one portion.
    """
    rows = torch.arange(candidates.image.shape[0], device=candidates.image.device)
    return (rows,) if torch.compiler.is_exporting() else rows.split(at_once)
