"""Masks as polygons whose lines run along the edges of pixels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

Ring = list[tuple[int, int]]
"""Corners (x, y) of a closed line, the first not repeated."""


@dataclass(frozen=True)
class Polygon:
    """A part of a mask whose pixels hang together by their sides.

    Attributes:
        outline: the ring around it.
        holes: rings around what is missing in it.
    """

    outline: Ring
    holes: list[Ring]


def polygons(mask: Bool[np.ndarray, "h w"]) -> list[Polygon]:
    """The parts of a mask, from the top down; filled, they are the mask again, pixel by pixel.

    Corners are in continuous pixels: pixel (row i, column j) covers [j, j+1) x [i, i+1). At each corner a horizontal line meets a
    vertical one, so sorting corners by row pairs them into all horizontal lines, sorting by column into all vertical ones.
    """
    corners = _corners(mask)
    beside = _partners(np.lexsort((corners[:, 2], corners[:, 0], corners[:, 1])))
    below = _partners(np.lexsort((corners[:, 3], corners[:, 1], corners[:, 0])))
    free = [True] * len(corners)
    points = [(x, y) for x, y in corners[:, :2].tolist()]
    rings: list[Ring] = []
    for start in range(len(points)):  # corners come from the top down, so the first of a ring is its upper left one
        if not free[start]:
            continue
        ring, at = [], start
        while free[at]:
            across = beside[at]
            ring += [points[at], points[across]]
            free[at] = free[across] = False
            at = below[across]
        rings.append(ring)
    return _nested(rings, mask)


def _corners(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "n 4"]:
    """Where the outline turns: x, y, and the order among two corners in one place along the row and along the column.

    Two corners lie where two pixels touch by their tips alone; the outline then keeps to one pixel at each of the two.
    """
    framed = np.pad(mask, 1)
    upper_left, upper_right = framed[:-1, :-1], framed[:-1, 1:]
    lower_left, lower_right = framed[1:, :-1], framed[1:, 1:]
    touching = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    odd = upper_left ^ upper_right ^ lower_left ^ lower_right
    y, x = np.nonzero(odd | touching)
    twice = touching[y, x]
    falling = upper_left[y, x]  # the two pixels are the upper left and the lower right one
    zero = np.zeros_like(x)
    first = np.stack([x, y, zero, np.where(twice & ~falling, 1, 0)], 1)
    second = np.stack([x, y, zero + 1, np.where(falling, 1, 0)], 1)[twice]
    place = np.concatenate([np.arange(len(x)), np.flatnonzero(twice)])
    return np.concatenate([first, second])[np.argsort(place, kind="stable")]


def _partners(order: Int[np.ndarray, " n"]) -> list[int]:
    """The other end of each corner's line, where neighbours in `order` are the ends of lines."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner.tolist()


def _nested(rings: list[Ring], mask: Bool[np.ndarray, "h w"]) -> list[Polygon]:
    """Rings sorted into outlines and their holes.

    A ring's first corner is the upper left one of what it encloses, which begins with the pixel there: of the mask or not. The
    pixel left of a hole belongs to the part that has the hole; the nearest line further left bounds that part too.
    """
    found: list[Polygon] = []
    owner: list[Polygon] = []
    lines = np.full((mask.shape[0], mask.shape[1] + 1), -1)
    for number, ring in enumerate(rings):
        for (x, y), (_, end) in zip(ring[1::2], [*ring[2::2], ring[0]], strict=True):
            lines[min(y, end) : max(y, end), x] = number
    columns = np.where(lines >= 0, np.arange(lines.shape[1]), 0)
    nearest = np.maximum.accumulate(columns, axis=1) if len(rings) else columns
    for ring in rings:
        x, y = ring[0]
        if mask[y, x]:
            owner.append(Polygon(ring, []))
            found.append(owner[-1])
        else:
            owner.append(owner[lines[y, nearest[y, x - 1]]])
            owner[-1].holes.append(ring)
    return found
