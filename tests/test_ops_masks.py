"""Masks: pasting and resizing against slow loops and hand-made values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.whole_masks import paste_box_masks, resize_image_masks
from perpixel.ops.masks import aligned_bilinear


def slow_paste(values: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear value at each pixel centre, cells outside the mask counting 0, one pixel and one cell at a time."""
    cells = len(values)
    out = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            v = (y + 0.5 - box[1]) / (box[3] - box[1]) * cells - 0.5
            u = (x + 0.5 - box[0]) / (box[2] - box[0]) * cells - 0.5
            for i in range(cells):
                for j in range(cells):
                    out[y, x] += max(0, 1 - abs(v - i)) * max(0, 1 - abs(u - j)) * values[i, j]
    return out


def test_paste_by_hand():
    """Box (2, 1)-(6, 3) with a 2x2 mask: cells are 2 wide and 1 high, their centres at x = 3, 5 and y = 1.5, 2.5.

    Only the top left cell is 1. Row y = 1 (centre 1.5) lies on it; along x the pixel centres 2.5, 3.5, 4.5 lie -0.25,
    +0.25, +0.75 cells from it: values 0.75, 0.75, 0.25. Pixel 1 (centre 1.5) lies 0.75 cells outside: 0.25. Row 2 lies
    on the second row of cells, all 0. So the mask is pixels 2 and 3 of row 1.
    """
    values = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    mask = paste_box_masks(values, torch.tensor([[2.0, 1.0, 6.0, 3.0]]), (4, 8))
    assert mask[0].nonzero().tolist() == [[1, 2], [1, 3]]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5]))
def test_paste_equals_the_slow_loop(seed, cells):
    random = np.random.default_rng(seed)
    values = random.random((3, cells, cells)).astype(np.float32)
    low = random.uniform(-5, 10, (3, 2))
    boxes = np.concatenate([low, low + random.uniform(1, 14, (3, 2))], 1).astype(np.float32)
    masks = paste_box_masks(torch.from_numpy(values), torch.from_numpy(boxes), (9, 13))
    for mask, value, box in zip(masks.numpy(), values, boxes, strict=True):
        slow = slow_paste(value, box, (9, 13))
        certain = abs(slow - 0.5) > 1e-5
        np.testing.assert_array_equal(mask[certain], (slow >= 0.5)[certain])


def test_paste_fills_a_whole_box_exactly():
    """A mask of ones over an integer box is the box: the outermost centres reach 0.5 exactly at its edges."""
    mask = paste_box_masks(torch.ones(1, 7, 7), torch.tensor([[3.0, 2.0, 17.0, 9.0]]), (12, 20))[0]
    expected = torch.zeros(12, 20, dtype=torch.bool)
    expected[2:9, 3:17] = True
    assert torch.equal(mask, expected)


def test_a_value_at_the_threshold_is_inside():
    """One cell over one pixel: the pixel's value is the cell's, 0.5, and 0.5 >= 0.5."""
    box = torch.tensor([[2.0, 1.0, 3.0, 2.0]])
    assert paste_box_masks(torch.full((1, 1, 1), 0.5), box, (3, 4))[0].nonzero().tolist() == [[1, 2]]
    assert not paste_box_masks(torch.full((1, 1, 1), 0.499), box, (3, 4)).any()


def slow_aligned(values: np.ndarray, factor: int) -> np.ndarray:
    """Output pixel p reads input position max(0, p - factor // 2) / factor, clamped to the last value."""
    height, width = values.shape
    out = np.zeros((height * factor, width * factor))
    for y in range(height * factor):
        for x in range(width * factor):
            v, u = max(0, y - factor // 2) / factor, max(0, x - factor // 2) / factor
            i, j = int(v), int(u)
            at = [values[min(a, height - 1), min(b, width - 1)] for a in (i, i + 1) for b in (j, j + 1)]
            a, b = v - i, u - j
            out[y, x] = (1 - a) * ((1 - b) * at[0] + b * at[1]) + a * ((1 - b) * at[2] + b * at[3])
    return out


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_aligned_bilinear_equals_the_slow_loop(factor):
    values = torch.rand(2, 1, 3, 5)
    large = aligned_bilinear(values, factor)
    for row, small in zip(large, values, strict=True):
        np.testing.assert_allclose(row[0].numpy(), slow_aligned(small[0].double().numpy(), factor), atol=1e-5)


def test_resize_keeps_a_rectangle_at_scale_one():
    """Stride 2, no padding, original = input: values 1 on columns 2.. give pixel 2 * 2 + 1 = 5 exactly 1 and pixel 4 the
    mean of columns 1 and 2, 0.5, which is not > 0.5; so the mask starts at pixel 5."""
    values = torch.zeros(1, 3, 4)
    values[:, :, 2:] = 1
    mask = resize_image_masks(values, 2, (6, 8), (6, 8))[0]
    assert mask[0].tolist() == [False] * 5 + [True] * 3
    assert (mask == mask[0]).all()


def test_resize_does_not_see_the_padding():
    """What lies outside the image inside the padding changes nothing once it is farther than one cell."""
    values = torch.rand(2, 6, 8)
    changed = values.clone()
    changed[:, 5:], changed[:, :, 6:] = 1, 1
    arguments = (4, (16, 20), (37, 51))
    assert torch.equal(resize_image_masks(values, *arguments), resize_image_masks(changed, *arguments))


def test_nothing_gives_nothing():
    empty = torch.zeros(0, 4)
    assert paste_box_masks(torch.zeros(0, 5, 5), empty, (6, 7)).shape == (0, 6, 7)
    assert resize_image_masks(torch.zeros(0, 3, 4), 4, (12, 16), (6, 7)).shape == (0, 6, 7)
