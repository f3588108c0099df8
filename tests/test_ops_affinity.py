"""Edges between pixels: each once, values at both ends, probabilities by hand."""

import math

import pytest
import torch

from perpixel.ops.affinity import color_similarity, ends, half_neighbourhood, log_same


def test_half_of_a_patch():
    """Of the 8 neighbours of 3 x 3 those after the middle, two pixels apart; of 24 of 5 x 5 the later 12."""
    assert half_neighbourhood(3, 2) == [(0, 2), (2, -2), (2, 0), (2, 2)]
    assert len(half_neighbourhood(5, 1)) == 12
    both = half_neighbourhood(5, 1) + [(-y, -x) for y, x in half_neighbourhood(5, 1)]
    assert len(set(both)) == 24 and (0, 0) not in both


@pytest.mark.parametrize("offset", [(0, 2), (2, -2), (1, 0), (2, 1), (0, 7), (9, 1), (9, -8)])
def test_ends_are_the_two_pixels(offset):
    """The pixel number y * 7 + x and the one `offset` away, for every pair that lies on a map of 5 x 7; none on a smaller one."""
    numbers = torch.arange(35).reshape(1, 5, 7)
    first, second = ends(numbers, offset)
    down, right = offset
    pairs = [
        (y * 7 + x, (y + down) * 7 + x + right)
        for y in range(5)
        for x in range(7)
        if y + down < 5 and 0 <= x + right < 7
    ]
    assert list(zip(first.flatten().tolist(), second.flatten().tolist(), strict=True)) == pairs


def test_similarity_by_hand():
    """LAB 3, 4, 12 apart: 13; theta 2: exp(-6.5). The same colour: 1."""
    first = torch.zeros(1, 3, 1, 2)
    second = torch.tensor([[3.0, 0], [4, 0], [12, 0]]).reshape(1, 3, 1, 2)
    assert color_similarity(first, second, 2.0).flatten().tolist() == pytest.approx([math.exp(-6.5), 1])


def test_same_label_by_hand():
    """p = 0.8 and q = 0.3: 0.24 + 0.14 = 0.38, different 0.62; sure ones stay finite where 1 - p is 0 in float32."""
    logit = {p: math.log(p / (1 - p)) for p in (0.8, 0.3)}
    first, second = torch.tensor([[[logit[0.8]]]]), torch.tensor([[[logit[0.3]]]])
    assert log_same(first, second).item() == pytest.approx(math.log(0.38), abs=1e-6)
    assert log_same(first, -second).item() == pytest.approx(math.log(0.62), abs=1e-6)
    sure = torch.full((1, 1, 1), 60.0)
    assert log_same(sure, -sure).item() == pytest.approx(-60 + math.log(2), rel=1e-6)
    assert -1e-20 < log_same(sure, sure).item() <= 0
