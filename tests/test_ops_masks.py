"""Masks: pasting, resizing and run lengths against slow loops and hand-made values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.ops import masks as masks_module
from perpixel.ops.masks import (
    aligned_bilinear,
    decode,
    encode,
    encode_window,
    encoded,
    paste_box_masks,
    resize_image_masks,
    resize_where_masked,
)
from perpixel.structures import BoxMasks, ImageMasks


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
    masks = paste_box_masks(torch.from_numpy(values), torch.from_numpy(boxes), (9, 13), chunk_bytes=1)
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


def test_chunks_change_nothing():
    values, boxes = torch.rand(7, 6, 8), torch.tensor([[1.0, 2.0, 30.0, 20.0]]).repeat(7, 1)
    one = resize_image_masks(values, 4, (24, 32), (20, 40), chunk_bytes=1)
    assert torch.equal(one, resize_image_masks(values, 4, (24, 32), (20, 40)))
    for masks in (ImageMasks(values, 4), BoxMasks(torch.rand(7, 5, 5))):
        small = list(encoded(masks, boxes, (24, 32), (20, 40), chunk_bytes=1))
        assert small == list(encoded(masks, boxes, (24, 32), (20, 40)))
        assert len(small) == 7


def blobs(count, height, width, seed=0):
    """Probabilities as a network gives them: soft ellipses, some cut by the border, one everywhere, one nowhere."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    out = []
    for _ in range(count - 2):
        cy, cx, ry, rx = random.uniform([0, 0, 1, 1], [height, width, height / 2, width / 2])
        distance = np.hypot((y - cy) / ry, (x - cx) / rx)
        out.append(1 / (1 + np.exp(random.uniform(3, 20) * (distance - 1) + random.normal(0, 0.5, (height, width)))))
    return torch.tensor(np.stack([*out, np.ones((height, width)), np.zeros((height, width))])).float()


@pytest.mark.parametrize(
    ("stride", "inside", "original"),
    [
        (4, (157, 201), (157, 201)),
        (4, (160, 208), (333, 417)),
        (4, (160, 208), (61, 77)),
        (2, (80, 104), (81, 50)),
        (8, (313, 410), (7, 9)),
    ],
)
def test_masks_where_they_can_be_equal_masks_everywhere(stride, inside, original):
    """Enlarged, shrunk by more than a cell, with padding: not one pixel in 100,000 differs, and each overlaps by > 0.999."""
    values = blobs(30, 40, 52)
    fast = resize_where_masked(values, stride, inside, original)
    whole = resize_image_masks(values, stride, inside, original)
    assert (fast != whole).float().mean() <= 1e-5
    for a, b in zip(fast, whole, strict=True):
        union = (a | b).sum()
        assert union == 0 or (a & b).sum() / union > 0.999
    assert fast[-2].all() and not fast[-1].any()


def test_only_the_part_with_a_mask_is_computed(monkeypatch):
    """One cell of 4 x 4 passes: pixel p of the input reads cells (p - 2) / 4, so it is made from cell 5 for 18 < p < 26."""
    values = torch.zeros(1, 40, 52)
    values[0, 5, 9] = 1
    seen = []
    reach = masks_module._Reach.of
    monkeypatch.setattr(masks_module._Reach, "of", lambda self, high: seen.extend(reach(self, high)) or iter(seen[-1:]))
    mask = resize_where_masked(values, 4, (160, 208), (160, 208))[0]
    assert seen == [(slice(19, 26), slice(4, 7)), (slice(35, 42), slice(8, 11))]
    assert torch.equal(mask, resize_image_masks(values, 4, (160, 208), (160, 208))[0]) and mask.any()


def test_encoded_equals_the_whole_at_once():
    values, boxes = torch.rand(5, 6, 8), torch.tensor([[1.5, 2.0, 30.0, 20.25]]).repeat(5, 1)
    by_image = resize_image_masks(values, 4, (22, 30), (20, 40))
    assert list(encoded(ImageMasks(values, 4), boxes, (22, 30), (20, 40))) == encode(by_image)
    by_box = paste_box_masks(values[:, :, :6], boxes, (20, 40))
    assert list(encoded(BoxMasks(values[:, :, :6]), boxes, (22, 30), (20, 40))) == encode(by_box)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_encode_and_decode_are_inverse_and_equal_pycocotools(count):
    oracle = pytest.importorskip("pycocotools.mask")
    masks = torch.rand(count, 11, 7) > 0.5
    runs = encode(masks)
    np.testing.assert_array_equal(decode(runs, (11, 7)), masks.numpy())
    for run, mask in zip(runs, masks, strict=True):
        expected = oracle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        assert run["counts"] == expected["counts"].decode()
        assert list(run["size"]) == list(expected["size"])


def test_full_size_masks_exist_for_a_few_instances_at_a_time(monkeypatch):
    """40 instances of 20x40 pixels at 4 + 1 bytes: 12,000 bytes hold three of them, so no call ever sees more."""
    seen = []
    paste = masks_module.paste_box_masks

    def counting(values, *arguments, **more):
        seen.append(len(values))
        return paste(values, *arguments, **more)

    monkeypatch.setattr(masks_module, "paste_box_masks", counting)
    boxes = torch.tensor([[1.0, 2.0, 30.0, 20.0]]).repeat(40, 1)
    runs = list(encoded(BoxMasks(torch.rand(40, 5, 5)), boxes, (24, 32), (20, 40), chunk_bytes=12_000))
    assert len(runs) == 40 and seen == [3] * 13 + [1]


def test_nothing_gives_nothing():
    empty = torch.zeros(0, 4)
    assert paste_box_masks(torch.zeros(0, 5, 5), empty, (6, 7)).shape == (0, 6, 7)
    assert resize_image_masks(torch.zeros(0, 3, 4), 4, (12, 16), (6, 7)).shape == (0, 6, 7)
    assert resize_where_masked(torch.zeros(0, 3, 4), 4, (12, 16), (6, 7)).shape == (0, 6, 7)
    assert list(encoded(BoxMasks(torch.zeros(0, 5, 5)), empty, (6, 7), (6, 7))) == []


@given(data=st.data())
def test_a_window_is_encoded_as_the_whole(data):
    """The same bytes as `encode` of the full mask, whatever the window holds: also nothing, all, runs over columns."""
    height, width = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    top, left = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    tall, wide = data.draw(st.integers(0, height - top)), data.draw(st.integers(0, width - left))
    bits = data.draw(st.lists(st.booleans(), min_size=tall * wide, max_size=tall * wide))
    inside = np.array(bits, bool).reshape(tall, wide)
    whole = np.zeros((1, height, width), bool)
    whole[0, top : top + tall, left : left + wide] = inside
    assert [encode_window(inside, top, left, (height, width))] == encode(whole)


def test_full_windows_are_encoded_as_the_whole():
    """Full columns join to one run: all of a 3x4 image, and its two right columns after 6 pixels of nothing."""
    for left in (0, 2):
        inside = np.ones((3, 4 - left), bool)
        whole = np.zeros((1, 3, 4), bool)
        whole[0, :, left:] = True
        assert [encode_window(inside, 0, left, (3, 4))] == encode(whole)
