"""Dynamic cells: six aggregations against slow obvious loops, and the cell's pool."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perpixel.config import from_dict, to_dict
from perpixel.nn.aggregations import AGGREGATIONS, build_aggregation
from perpixel.nn.dynamic_cell import CELL_INPUTS, CellGenotype, DynamicCell
from perpixel.nn.operations import CELL_OPERATIONS


def pair():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 4, 5, 6, generator=generator), torch.randn(2, 4, 5, 6, generator=generator)


def randomized(module):
    """Every parameter and statistic away from its first value."""
    generator = torch.Generator().manual_seed(5)
    for tensor in (*module.parameters(), *(b for n, b in module.named_buffers() if "running" in n)):
        with torch.no_grad():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module.eval()


def test_sum_weighs_each_channel():
    x, y = pair()
    join = randomized(build_aggregation("sum", 4))
    out = join(x, y)
    for c in range(4):
        torch.testing.assert_close(out[:, c], join.a[c, 0, 0] * x[:, c] + join.b[c, 0, 0] * y[:, c])


def test_concat_reads_two_neighbours_each():
    """Output i sees channels 2i and 2i + 1 of (x, y) joined, after norm and ReLU: of 4 channels, the first two see x alone."""
    x, y = pair()
    join = randomized(build_aggregation("concat", 4))
    joined = F.relu(join.norm(torch.cat([x, y], dim=1)))
    out = join(x, y)
    for i in range(4):
        weights = join.conv.weight[i, :, 0, 0]
        torch.testing.assert_close(out[:, i], weights[0] * joined[:, 2 * i] + weights[1] * joined[:, 2 * i + 1])
    torch.testing.assert_close(join(x, y + 1)[:, :2], out[:, :2])


def test_filters_are_weighted_means_of_the_neighbourhood():
    x, y = pair()
    join = build_aggregation("filters", 4).eval()
    weights = join.filters(x).softmax(dim=1)
    out = join(x, y)
    for row in range(5):
        for column in range(6):
            total = torch.zeros(2, 4)
            for k in range(9):
                r, c = row + k // 3 - 1, column + k % 3 - 1
                if 0 <= r < 5 and 0 <= c < 6:
                    total += weights[:, k, row, column, None] * y[:, :, r, c]
            torch.testing.assert_close(out[:, :, row, column], total)


def test_sampling_by_an_affine_grid():
    """theta is set so that the sample of pixel (row, column) is one pixel further right: x shifted to the left, plus y.

    Pixel centres of a map 6 wide lie 1/3 apart in -1..1, so one pixel is an offset of 1/3; beyond the border there is zero.
    """
    x, y = pair()
    join = build_aggregation("sample", 4)
    with torch.no_grad():
        join.theta.weight.zero_()
        join.theta.bias.copy_(torch.tensor([1.0, 0.0, 1 / 3, 0.0, 1.0, 0.0]))
    shifted = torch.cat([x[..., 1:], torch.zeros(2, 4, 5, 1)], dim=3)
    torch.testing.assert_close(join(x, y), shifted + y, atol=1e-5, rtol=1e-5)


def test_sampling_starts_near_the_identity():
    x, y = pair()
    assert (build_aggregation("sample", 4)(x, y) - x - y).abs().mean() < 0.1


def test_stacked_convolution_is_the_3d_one():
    x, y = pair()
    join = build_aggregation("conv3d", 4)
    conv = nn.Conv3d(4, 4, (2, 3, 3), padding=(0, 1, 1), groups=4, bias=False)
    with torch.no_grad():
        conv.weight[:, 0].copy_(join.conv.weight)
    torch.testing.assert_close(join(x, y), conv(torch.stack([x, y], dim=2))[:, :, 0], atol=1e-5, rtol=1e-5)


def test_attention():
    """sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4."""
    x = torch.full((1, 1, 1, 2), 8.0)
    y = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 1, 2)
    torch.testing.assert_close(build_aggregation("attention", 1)(x, y).flatten(), torch.tensor([4.0, 6.0]))


CHANNELS, SIZES = (3, 5, 7), ((8, 12), (4, 6), (2, 3))


def inputs(width):
    layers = [torch.randn(2, c, *size) for c, size in zip(CHANNELS, SIZES, strict=True)]
    return torch.randn(2, CHANNELS[2], *SIZES[2]), torch.randn(2, width, *SIZES[0]), layers


def test_a_cell_by_hand():
    """One step, both inputs the previous dec, skipped and summed with weights 1: twice dec, then the reduction."""
    cell = DynamicCell(CellGenotype.parse([[1, 1, 4, 4, 0]]), CHANNELS, 4).eval()
    old, dec, layers = inputs(4)
    torch.testing.assert_close(cell(old, dec, layers), cell.reduce(2 * dec))
    assert not cell.adapt and cell.outputs == (5,)


def test_outputs_are_what_no_step_takes():
    """Steps make 5, 6, 7; the last takes 5 and 5: 6 and 7 are concatenated."""
    cell = DynamicCell(CellGenotype.parse([[1, 2, 4, 0, 0], [0, 3, 4, 4, 0], [5, 5, 4, 4, 0]]), CHANNELS, 4)
    assert cell.outputs == (6, 7) and cell.reduce[0].in_channels == 8 and set(cell.adapt) == {"0", "2", "3"}


def test_coarse_inputs_alone_come_out_at_the_size_of_dec():
    cell = DynamicCell(CellGenotype.parse([[4, 0, 4, 4, 0]]), CHANNELS, 4).eval()
    assert cell(*inputs(4)).shape == (2, 4, 8, 12)


def test_notation_and_json_return():
    tokens = [[1, 2, 4, 0, 0], [5, 4, 5, 3, 2], [6, 6, 1, 2, 5]]
    genotype = CellGenotype.parse(tokens)
    assert genotype.notation() == tokens
    assert genotype.steps[1].operations == ("deform3", "sep5_rate6") and genotype.steps[1].aggregation == "filters"
    assert from_dict(CellGenotype, json.loads(json.dumps(to_dict(genotype)))) == genotype


@pytest.mark.parametrize("tokens", [[[5, 0, 0, 0, 0]], [[0, 0, 0, 0, 0], [0, 6, 0, 0, 0]], []])
def test_places_that_are_not_there_are_refused(tokens):
    with pytest.raises(ValueError, match="steps"):
        CellGenotype.parse(tokens)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_genotype_runs_and_every_parameter_learns(data):
    def token(count):
        return data.draw(st.integers(0, count - 1))

    tokens = [
        [token(pool), token(pool), token(len(CELL_OPERATIONS)), token(len(CELL_OPERATIONS)), token(len(AGGREGATIONS))]
        for pool in range(len(CELL_INPUTS), len(CELL_INPUTS) + 4)
    ]
    genotype = CellGenotype.parse(tokens)
    assert genotype.notation() == tokens
    cell = DynamicCell(genotype, CHANNELS, 4)
    out = cell(*inputs(4))
    assert out.shape == (2, 4, 8, 12) and torch.isfinite(out).all()
    out.sum().backward()
    assert [name for name, p in cell.named_parameters() if p.grad is None] == []
