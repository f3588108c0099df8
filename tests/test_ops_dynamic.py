"""Dynamic filters: the order of the 169 numbers, and one batched product against a loop over instances and pixels."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from perpixel.ops.dynamic import apply_filters, filter_count, maps_of_images, over_places, split_filters


def test_169():
    """Thesis 5.2.2: (8 + 2) x 8 + 8 x 8 + 8 x 1 weights and 8 + 8 + 1 biases; with 16 mask channels 64 weights more."""
    assert filter_count((10, 8, 8, 1)) == 80 + 64 + 8 + 8 + 8 + 1 == 169
    assert filter_count((18, 8, 8, 1)) == 233


def test_order_of_the_numbers():
    """All weights before all biases; a weight's row belongs to one output: (2, 2, 1) has 4 + 2 weights, 2 + 1 biases.

    Numbers 0..8 are rows (0, 1), (2, 3) of the first layer, (4, 5) of the second, biases (6, 7) and 8.
    """
    (first, first_bias), (second, second_bias) = split_filters(torch.arange(9.0)[None], (2, 2, 1))
    assert first.tolist() == [[[0, 1], [2, 3]]]
    assert second.tolist() == [[[4, 5]]]
    assert (first_bias.tolist(), second_bias.tolist()) == ([[6, 7]], [[8]])


def test_a_network_by_hand():
    """One pixel x = (1, -1), layers as above but biases (-1, 2) and 3.

    First: (0 - 1 - 1, 2 - 3 + 2) = (-2, 1), ReLU (0, 1); second: 4 x 0 + 5 x 1 + 3 = 8. The last layer has no ReLU: with a
    bias of -9 it gives -4.
    """
    numbers = torch.tensor([[0.0, 1, 2, 3, 4, 5, -1, 2, 3], [0.0, 1, 2, 3, 4, 5, -1, 2, -9]])
    x = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1).expand(2, -1, -1, -1)
    assert apply_filters(x, split_filters(numbers, (2, 2, 1))).flatten().tolist() == [8, -4]


@pytest.mark.parametrize("channels", [(10, 8, 8, 1), (3, 1), (2, 2, 2, 2, 1)])
def test_equals_a_loop_over_instances(channels):
    numbers, maps = torch.randn(5, filter_count(channels)), torch.randn(5, channels[0], 3, 4)
    found = apply_filters(maps, split_filters(numbers, channels))
    for row, (theta, x) in enumerate(zip(numbers, maps, strict=True)):
        theta = list(theta)
        sizes = list(pairwise(channels))
        weights = [torch.stack([theta.pop(0) for _ in range(c * out)]).reshape(out, c, 1, 1) for c, out in sizes]
        biases = [torch.stack([theta.pop(0) for _ in range(out)]) for _, out in sizes]
        x = x[None]
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = F.conv2d(x if layer == 0 else x.relu(), weight, bias)
        assert not theta
        torch.testing.assert_close(found[row], x[0])


def test_no_instance():
    numbers, maps = torch.zeros(0, 169, requires_grad=True), torch.zeros(0, 10, 3, 4)
    found = apply_filters(maps, split_filters(numbers, (10, 8, 8, 1)))
    assert found.shape == (0, 1, 3, 4)
    found.sum().backward()
    assert numbers.grad is not None


def test_maps_of_images():
    """Instances of images 1, 0, 1 read those maps; of a single image it is the same memory, not a copy."""
    maps, image = torch.randn(2, 3, 4, 5), torch.tensor([1, 0, 1])
    assert torch.equal(maps_of_images(maps, image), maps[[1, 0, 1]])
    one = maps_of_images(maps[:1], torch.zeros(3, dtype=torch.long))
    assert torch.equal(one, maps[[0, 0, 0]]) and one.data_ptr() == maps.data_ptr()


def test_over_places_by_hand():
    """Inputs (2 p + 3, f) with weights (5, 7) and bias 1: 5 (2 p + 3) + 7 f + 1 = 10 p + 7 f + 16."""
    layer = torch.tensor([[[5.0, 7.0]]]), torch.tensor([[1.0]])
    weight, bias = over_places(layer, torch.tensor([[2.0]]), torch.tensor([[3.0]]))
    assert (weight.tolist(), bias.tolist()) == ([[[10, 7]]], [[16]])
