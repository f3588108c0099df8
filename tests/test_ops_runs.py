"""Run lengths: the same bytes as pycocotools', whole and from windows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perpixel.ops.runs import decode, encode, encode_window


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
