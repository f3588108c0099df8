"""Polygons of masks: by hand, and filled again they are the mask."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perpixel.ops.contours import Polygon, Ring, polygons


def inside(ring: Ring, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre has an odd number of the ring's vertical lines to its left."""
    out = np.zeros(size, bool)
    for (x, y), (other, end) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if x == other:
            out[min(y, end) : max(y, end), x:] ^= True
    return out


def drawn(found: list[Polygon], size: tuple[int, int]) -> np.ndarray:
    """The slow way: each outline filled, each hole taken out; parts share no pixel."""
    out = np.zeros(size, int)
    for part in found:
        filled = inside(part.outline, size)
        for hole in part.holes:
            emptied = inside(hole, size)
            assert not (emptied & ~filled).any()
            filled &= ~emptied
        out += filled
    assert out.max(initial=0) <= 1
    return out.astype(bool)


def test_two_pixels_that_touch_by_their_tips():
    """They are two parts of four corners each, whichever way they lie."""
    falling = polygons(np.eye(2, dtype=bool))
    assert [sorted(part.outline) for part in falling] == [
        [(0, 0), (0, 1), (1, 0), (1, 1)],
        [(1, 1), (1, 2), (2, 1), (2, 2)],
    ]
    rising = polygons(np.eye(2, dtype=bool)[::-1])
    assert [sorted(part.outline) for part in rising] == [
        [(1, 0), (1, 1), (2, 0), (2, 1)],
        [(0, 1), (0, 2), (1, 1), (1, 2)],
    ]


def test_a_hole_with_an_island():
    """A frame of 5x5 with a pixel in its middle: the frame has one hole, the pixel is a part of its own."""
    mask = np.ones((5, 5), bool)
    mask[1:4, 1:4] = False
    mask[2, 2] = True
    frame, island = polygons(mask)
    assert frame.outline == [(0, 0), (5, 0), (5, 5), (0, 5)]
    assert frame.holes == [[(1, 1), (4, 1), (4, 4), (1, 4)]]
    assert island == Polygon([(2, 2), (3, 2), (3, 3), (2, 3)], [])


def test_nothing():
    assert polygons(np.zeros((3, 4), bool)) == [] and polygons(np.zeros((0, 0), bool)) == []


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_filled_they_are_the_mask(mask):
    np.testing.assert_array_equal(drawn(polygons(mask), mask.shape), mask)


@given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_a_part_hangs_together_by_sides(mask):
    """As many parts as a flood fill over the four neighbours finds."""
    left, parts = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}, 0
    while left:
        parts, waiting = parts + 1, [left.pop()]
        while waiting:
            y, x = waiting.pop()
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            waiting += near
    assert len(polygons(mask)) == parts
