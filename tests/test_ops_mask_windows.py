"""Masks in windows of the image: equal to masks everywhere, and nothing but the window is computed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.whole_masks import paste_box_masks, resize_image_masks
from perpixel.ops.mask_windows import GROUP, each_mask, encoded, windows
from perpixel.ops.runs import encode
from perpixel.structures import BoxMasks, ImageMasks

NOWHERE = torch.zeros(1, 4)


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
    fast = torch.stack(list(each_mask(ImageMasks(values, stride), NOWHERE.expand(30, 4), inside, original)))
    whole = resize_image_masks(values, stride, inside, original)
    assert (fast != whole).float().mean() <= 1e-5
    for a, b in zip(fast, whole, strict=True):
        union = (a | b).sum()
        assert union == 0 or (a & b).sum() / union > 0.999
    assert fast[-2].all() and not fast[-1].any()


def test_only_the_part_with_a_mask_is_computed():
    """One cell of 4 x 4 passes: pixel p of the input reads cells (p - 2) / 4, so it is made from cell 5 for 18 < p < 26.

    Those rows lie in the group of pixels 0..31; columns of cell 9, 34 < p < 42, in that of 32..63. The last group is as
    wide as what is left of the image: column 206 of 208 lies among 192..207.
    """
    values = torch.zeros(2, 40, 52)
    values[0, 5, 9] = values[1, 5, 51] = 1
    assert GROUP == 32
    first, last = windows(ImageMasks(values, 4), NOWHERE.expand(2, 4), (160, 208), (160, 208))
    assert (first.y, first.x) == (slice(0, 32), slice(32, 64)) and first.inside.shape == (32, 32)
    assert last.x == slice(192, 208) and last.inside.shape == (32, 16)
    whole = resize_image_masks(values, 4, (160, 208), (160, 208))
    assert torch.equal(whole[0, 0:32, 32:64], first.inside) and first.inside.any()
    assert torch.equal(whole[1, 0:32, 192:], last.inside) and last.inside.any()


def test_a_box_mask_is_computed_in_its_box_and_half_a_cell_around():
    """Box (2, 4)-(10, 8) of 4 x 4 cells: they are 2 wide and 1 high, so columns 1..10, rows 3..8; cut at the border."""
    box = torch.tensor([[2.0, 4.0, 10.0, 8.0]])
    (whole,) = windows(BoxMasks(torch.ones(1, 4, 4)), box, (20, 30), (20, 30))
    assert (whole.y, whole.x) == (slice(3, 9), slice(1, 11))
    (cut,) = windows(BoxMasks(torch.ones(1, 4, 4)), box, (20, 30), (6, 7))
    assert (cut.y, cut.x) == (slice(3, 6), slice(1, 7))
    (outside,) = windows(BoxMasks(torch.ones(1, 4, 4)), box + 50, (20, 30), (20, 30))
    assert outside.inside.numel() == 0


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_box_masks_equal_those_of_the_whole_image(seed):
    """Boxes of any size, also thin, empty, partly or wholly outside."""
    random = np.random.default_rng(seed)
    corner, side = random.uniform(-20, 50, (4, 2)), random.uniform(0, 60, (4, 2)) * random.integers(0, 2, (4, 2))
    boxes = torch.tensor(np.concatenate([corner, corner + side], axis=1)).float()
    values = torch.from_numpy(random.uniform(0, 1, (4, 7, 7))).float()
    found = torch.stack(list(each_mask(BoxMasks(values), boxes, (33, 41), (33, 41))))
    assert (found != paste_box_masks(values, boxes, (33, 41))).float().mean() <= 1e-5


def test_encoded_equals_the_whole_at_once():
    values, boxes = torch.rand(5, 6, 8), torch.tensor([[1.5, 2.0, 30.0, 20.25]]).repeat(5, 1)
    by_image = resize_image_masks(values, 4, (22, 30), (20, 40))
    assert list(encoded(ImageMasks(values, 4), boxes, (22, 30), (20, 40))) == encode(by_image)
    by_box = paste_box_masks(values[:, :, :6], boxes, (20, 40))
    assert list(encoded(BoxMasks(values[:, :, :6]), boxes, (22, 30), (20, 40))) == encode(by_box)


@pytest.mark.parametrize("pixels", [1, 400, 801, 10**9])
def test_encoded_is_the_same_however_many_pixels_come_together(monkeypatch, pixels):
    """One mask at a time, one of 800 pixels or the next one too, two, all; the last of five stands alone."""
    values = torch.rand(5, 6, 8)
    expected = encode(resize_image_masks(values, 4, (22, 30), (20, 40)))
    monkeypatch.setattr("perpixel.ops.mask_windows.AT_ONCE", pixels)
    assert list(encoded(ImageMasks(values, 4), NOWHERE.expand(5, 4), (22, 30), (20, 40))) == expected


@pytest.mark.parametrize("masks", [BoxMasks(torch.zeros(0, 5, 5)), ImageMasks(torch.zeros(0, 3, 4), 4)])
def test_nothing_gives_nothing(masks):
    assert list(encoded(masks, NOWHERE[:0], (12, 16), (6, 7))) == []
