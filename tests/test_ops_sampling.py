"""Convolution at candidates equals the dense convolution followed by a gather."""

import torch
import torch.nn.functional as F

from perpixel.ops.locations import grid_points
from perpixel.ops.sampling import conv_at, patches_at
from perpixel.structures import Candidates, Locations


def some_candidates(locations, images, count):
    location = torch.randint(len(locations), (count,))
    boxes = torch.zeros(count, 4)
    return Candidates(
        image=torch.randint(images, (count,)),
        location=location,
        level=locations.levels[location],
        cell=locations.cells(location),
        points=locations.points[location],
        strides=locations.strides[location],
        boxes=boxes,
        predicted=boxes,
        anchors=None,
        labels=torch.zeros(count, dtype=torch.long),
    )


def pyramid_of(shapes, anchors_per_cell):
    points, strides, levels = grid_points(shapes, [8, 16, 32][: len(shapes)])
    spread = [x.repeat_interleave(anchors_per_cell, dim=0) for x in (points, strides, levels)]
    return Locations(*spread, None, tuple(shapes), anchors_per_cell)


def test_patches_convolved_equal_the_dense_convolution():
    shapes = [(5, 7), (3, 4), (1, 2)]
    for anchors_per_cell in (1, 3):
        locations = pyramid_of(shapes, anchors_per_cell)
        maps = [torch.randn(2, 6, *s, requires_grad=True) for s in shapes]
        weight, bias = torch.randn(4, 6, 3, 3), torch.randn(4)
        candidates = some_candidates(locations, images=2, count=60)
        sparse = conv_at(patches_at(maps, candidates), weight, bias)
        dense = [F.conv2d(m, weight, bias, padding=1).flatten(2).transpose(1, 2) for m in maps]
        dense = torch.cat([d.repeat_interleave(anchors_per_cell, dim=1) for d in dense], dim=1)
        gathered = dense[candidates.image, candidates.location]
        torch.testing.assert_close(sparse, gathered)
        ours, theirs = (torch.autograd.grad(x.square().sum(), maps, retain_graph=True) for x in (sparse, gathered))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_no_candidates_flow_through():
    locations = pyramid_of([(2, 2)], 1)
    patches = patches_at([torch.randn(1, 3, 2, 2)], some_candidates(locations, 1, 0))
    assert conv_at(patches, torch.randn(5, 3, 3, 3)).shape == (0, 5)


def test_the_weight_decides_the_precision():
    """Maps made under autocast are bfloat16; losses are taken in the precision of the weights."""
    locations = pyramid_of([(2, 2)], 1)
    patches = patches_at([torch.randn(1, 3, 2, 2, dtype=torch.bfloat16)], some_candidates(locations, 1, 4))
    found = conv_at(patches, torch.randn(5, 3, 3, 3), torch.randn(5))
    assert patches.dtype == torch.bfloat16 and found.dtype == torch.float32
