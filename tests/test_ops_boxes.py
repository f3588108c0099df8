"""Overlaps and box encodings, by hand."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.ops.boxes import (
    boxes_from_distances,
    clip_boxes,
    decode_deltas,
    distances_to_sides,
    encode_deltas,
    farthest_side,
    nearest_side,
    overlap,
    pairwise_iou,
)


def boxes_of(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_overlap_by_hand():
    """Squares of side 2 shifted by 1: intersection 1, union 7, hull 9; IoU 1/7, GIoU 1/7 - 2/9."""
    iou, giou = overlap(boxes_of([0, 0, 2, 2]), boxes_of([1, 1, 3, 3]))
    torch.testing.assert_close(iou, torch.tensor([1 / 7]))
    torch.testing.assert_close(giou, torch.tensor([1 / 7 - 2 / 9]))


def test_smoothing_touches_the_iou_alone():
    """Smoothing 1: IoU (1 + 1) / (7 + 1) = 1/4, the enclosing term stays 2/9."""
    iou, giou = overlap(boxes_of([0, 0, 2, 2]), boxes_of([1, 1, 3, 3]), smoothing=1.0)
    torch.testing.assert_close(iou, torch.tensor([0.25]))
    torch.testing.assert_close(giou, torch.tensor([0.25 - 2 / 9]))


def test_apart_and_empty():
    """Apart by 1 in x: intersection 0, union 2, hull 3 -> GIoU -1/3. Two equal empty boxes: finite."""
    iou, giou = overlap(boxes_of([0, 0, 1, 1], [5, 5, 5, 5]), boxes_of([2, 0, 3, 1], [5, 5, 5, 5]))
    assert iou[0] == 0
    torch.testing.assert_close(giou[0], torch.tensor(-1 / 3))
    assert torch.isfinite(torch.stack([iou, giou])).all()


def test_distances_by_hand():
    """Point (10, 20) in box (4, 8, 12, 40): left 6, top 12, right 2, bottom 20."""
    points, box = torch.tensor([[10.0, 20.0]]), boxes_of([4, 8, 12, 40])
    distances = distances_to_sides(points, box)
    assert distances.tolist() == [[6, 12, 2, 20]]
    assert torch.equal(boxes_from_distances(points, distances), box)


def test_deltas_by_hand():
    """Anchor 10 x 10 at centre (5, 5), box 20 x 10 at centre (10, 5): shift 0.5, 0; log ratio log 2, 0."""
    anchor, box = boxes_of([0, 0, 10, 10]), boxes_of([0, 0, 20, 10])
    deltas = encode_deltas(anchor, box)
    torch.testing.assert_close(deltas, torch.tensor([[0.5, 0.0, math.log(2), 0.0]]))
    torch.testing.assert_close(decode_deltas(anchor, deltas[None])[0], box)


def test_decoded_size_is_capped():
    """A delta of 100 would overflow; capped, a 16 px anchor grows to 1000 px."""
    wide = decode_deltas(boxes_of([0, 0, 16, 16]), torch.tensor([[[0.0, 0.0, 100.0, 0.0]]]))[0, 0]
    torch.testing.assert_close(wide[2] - wide[0], torch.tensor(1000.0))


def test_clip():
    assert clip_boxes(boxes_of([-5, -1, 30, 12]), (10, 20)).tolist() == [[0, 0, 20, 10]]


coordinate = st.integers(0, 20)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=6))
def test_pairwise_iou_is_the_obvious_loop(rows):
    """On whole-pixel boxes IoU is a count of shared cells over a count of covered cells."""
    rows = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rows]
    found = pairwise_iou(torch.tensor(rows).float().reshape(-1, 4), torch.tensor(rows).float().reshape(-1, 4))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            cells = [{(x, y) for x in range(r[0], r[2]) for y in range(r[1], r[3])} for r in (a, b)]
            union = len(cells[0] | cells[1])
            expected = len(cells[0] & cells[1]) / union if union else 0
            assert abs(found[i, j].item() - expected) < 1e-6


def test_nearest_and_farthest_side_are_the_extremes_of_all_four():
    points, boxes = torch.rand(30, 2) * 50, torch.rand(7, 4) * 50
    sides = distances_to_sides(points[:, None], boxes[None])
    assert torch.equal(nearest_side(points, boxes), sides.amin(dim=-1))
    assert torch.equal(farthest_side(points, boxes), sides.amax(dim=-1))
