"""The blender's steps by hand and the slow way."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perpixel.ops.blend import assemble, blend, blend_one, cut_bases, enlarge


def bilinear(values, y, x):
    """The value between four neighbours; beyond the outermost the outermost's."""
    height, width = len(values), len(values[0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = y - top, x - left
    upper = values[top][left] * (1 - along) + values[top][right] * along
    lower = values[bottom][left] * (1 - along) + values[bottom][right] * along
    return upper * (1 - down) + lower * down


def test_cutting_and_enlarging_equal_a_loop():
    """Cell (i, j) of a box samples the bases at its own middle; bases stand at (i + 0.5) * stride."""
    torch.manual_seed(0)
    bases, attention = torch.randn(2, 3, 8, 10), torch.randn(2, 3, 4, 4)
    boxes = torch.tensor([[3.0, 5.5, 29.5, 31.0], [-2.0, 1.0, 11.3, 6.2]])
    image = torch.tensor([1, 0])
    cut, large = cut_bases(bases, boxes, image, stride=4, size=6), enlarge(attention, 6)
    assert cut.shape == large.shape == (2, 3, 6, 6)
    for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        for k in range(3):
            for i in range(6):
                for j in range(6):
                    y, x = y1 + (i + 0.5) * (y2 - y1) / 6, x1 + (j + 0.5) * (x2 - x1) / 6
                    wanted = bilinear(bases[image[n], k].tolist(), y / 4 - 0.5, x / 4 - 0.5)
                    assert cut[n, k, i, j].item() == pytest.approx(wanted, abs=1e-5)
                    wanted = bilinear(attention[n, k].tolist(), (i + 0.5) * 4 / 6 - 0.5, (j + 0.5) * 4 / 6 - 0.5)
                    assert large[n, k, i, j].item() == pytest.approx(wanted, abs=1e-5)


def test_nearest_by_hand():
    """A box from 8 to 24 at stride 8 covers steps 1 to 3: both ends are rounded and belong to it, as in Fast R-CNN.

    Its 3 steps in 2 cells: from floor(0) to ceil(1.5) and from floor(1.5) to ceil(3), so steps 1, 2 and 2, 3. Values are
    10 y + x: the largest of the four cells are 22, 23, 32, 33. An attention of 2 x 2 at size 4: each cell twice either way.
    """
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    boxes = torch.tensor([[8.0, 8.0, 24.0, 24.0]])
    found = cut_bases((10 * y + x)[None, None], boxes, torch.tensor([0]), stride=8, size=2, sampling="nearest")
    assert found.tolist() == [[[[22, 23], [32, 33]]]]
    large = enlarge(torch.tensor([[[[1.0, 2], [3, 4]]]]), 4, "nearest")
    assert large.tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]]]


def test_blending_by_hand():
    """Attentions 0 and log 3 weigh 1/4 and 3/4: of bases 8 and -4 there is 2 - 3 = -1."""
    bases = torch.tensor([8.0, -4.0]).reshape(1, 2, 1, 1)
    attention = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1)
    assert blend(bases, attention).item() == pytest.approx(-1, abs=1e-6)


def test_attentions_of_one_cell_are_a_weighted_sum():
    """M = 1: each basis has one weight for the whole box, as YOLACT has it; the interpolation does not matter."""
    torch.manual_seed(0)
    bases, attention = torch.randn(5, 4, 7, 7), torch.randn(5, 4, 1, 1)
    wanted = torch.einsum("nk,nkij->nij", attention[..., 0, 0].softmax(dim=1), bases)
    for sampling in ("nearest", "bilinear"):
        torch.testing.assert_close(blend(bases, enlarge(attention, 7, sampling)), wanted)


@given(st.floats(-15, 15), st.floats(-15, 15))
def test_one_basis_is_a_product_of_sigmoids(r, a):
    """sigmoid(blend_one(r, a)) = sigmoid(r) sigmoid(a), to the rounding of float64."""
    pair = [torch.tensor(value, dtype=torch.float64).reshape(1, 1, 1, 1) for value in (r, a)]
    found = blend_one(*pair).sigmoid().item()
    assert found == pytest.approx(1 / (1 + math.exp(-r)) / (1 + math.exp(-a)), rel=1e-12)


def test_one_basis_far_out():
    """Where both are large the logit is -log(2 exp(-50)) = 50 - log 2, and its gradient is a number."""
    r, a = (torch.full((1, 1, 1, 1), 50.0, requires_grad=True) for _ in range(2))
    logit = blend_one(r, a)
    logit.sum().backward()
    assert logit.item() == pytest.approx(50 - math.log(2), rel=1e-6)
    assert r.grad.item() == pytest.approx(0.5, rel=1e-5) and a.grad.item() == pytest.approx(0.5, rel=1e-5)


def test_assembling_by_hand_and_as_a_case_of_the_blender():
    """2 x 2 parts of a 4 x 4 box: the upper left from basis 0, the upper right from 1, then 2 and 3.

    It is what the blender does with attentions that are one-hot, which a softmax of 1000 times the one-hot maps is.
    """
    bases = torch.arange(4.0)[None, :, None, None].expand(1, 4, 4, 4)
    assert assemble(bases, 2).tolist() == [[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]]
    torch.manual_seed(0)
    bases = torch.randn(3, 9, 7, 7)
    attention = 1000 * torch.eye(9).reshape(1, 9, 3, 3).expand(3, -1, -1, -1)
    torch.testing.assert_close(assemble(bases, 3), blend(bases, enlarge(attention, 7, "nearest")))


def test_nothing_to_blend():
    """n = 0 flows through, and the bases get a gradient of zero."""
    for sampling in ("bilinear", "nearest"):
        bases = torch.randn(1, 4, 8, 8, requires_grad=True)
        cut = cut_bases(bases, torch.zeros(0, 4), torch.zeros(0).long(), 4, 6, sampling)
        masks = blend(cut, enlarge(torch.zeros(0, 4, 3, 3), 6, sampling))
        assert masks.shape == blend_one(cut[:, :1], cut[:, :1]).shape == (0, 6, 6)
        masks.sum().backward()
        assert torch.equal(bases.grad, torch.zeros_like(bases))
    assert assemble(torch.zeros(0, 4, 6, 6), 2).shape == (0, 6, 6)
