"""FCOS's and RetinaNet's assignment: small layouts worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perpixel.ops.assign import (
    BACKGROUND,
    IGNORED,
    LevelRanges,
    ignore_crowds,
    inside_sampling_region,
    match_by_iou,
    preferred_objects,
)
from perpixel.ops.locations import anchor_shapes, grid_points, join_levels


def row_of_points(count=8, stride=8):
    """Points (4, 4), (12, 4), ... of one row of cells of stride 8."""
    points, strides, levels = grid_points([(1, count)], [stride])
    return points, strides, levels


def test_points_stand_in_the_middle_of_their_cells():
    """Levels of 2 x 2 at stride 8 and 1 x 1 at stride 16: floor(s / 2) + x s."""
    points, strides, levels = grid_points([(2, 2), (1, 1)], [8, 16])
    assert points.tolist() == [[4, 4], [12, 4], [4, 12], [12, 12], [8, 8]]
    assert strides.tolist() == [8, 8, 8, 8, 16] and levels.tolist() == [0, 0, 0, 0, 1]


def test_spread_points_follow_the_image():
    """Width 24 over 2 cells at stride 16 was rounded up: torchvision spaces them 24 // 2 = 12 apart, not 16."""
    points, _, _ = grid_points([(1, 3), (1, 2)], [8, 16], offset=0.0, spread=True)
    assert points.tolist() == [[0, 0], [8, 0], [16, 0], [0, 0], [12, 0]]


def test_anchor_shapes_by_hand():
    """Size 4 with height / width 4: 2 wide, 8 high; order by size or by ratio first."""
    assert anchor_shapes([4.0], [4.0]).tolist() == [[-1, -4, 1, 4]]
    by_size = anchor_shapes([2.0, 4.0], [1.0, 4.0])
    assert torch.equal(anchor_shapes([2.0, 4.0], [1.0, 4.0], ratio_first=True), by_size[[0, 2, 1, 3]])
    assert anchor_shapes([5.0], [1.0], rounded=True).tolist() == [[-2, -2, 2, 2]]  # 2.5 rounds to even


def test_join_levels_orders_location_then_anchor():
    """Channels a0k0 a0k1 a1k0 a1k1 of each cell become two rows of two."""
    a = torch.arange(8.0).reshape(1, 4, 1, 2)
    joined = join_levels([a, 10 + a[..., :1]], per_cell=2)
    assert joined.tolist() == [[[0, 2], [4, 6], [1, 3], [5, 7], [10, 12], [14, 16]]]


def test_sampling_region_is_the_square_clipped_to_the_box():
    """Box 0..64 wide, centre 32: radius 1.5 strides of 8 reaches 20 < x < 44, so points 28 and 36; the whole box has all."""
    points, strides, _ = row_of_points()
    box, center = torch.tensor([[0.0, 0.0, 64.0, 8.0]]), torch.tensor([[32.0, 4.0]])
    near = inside_sampling_region(points, strides, box, center, 1.5)[:, 0]
    assert points[near][:, 0].tolist() == [28, 36]
    assert inside_sampling_region(points, strides, box, center, None).all()
    # A box of 10 px clips the square: only the point inside it counts, though the square would reach its neighbours.
    small = torch.tensor([[8.0, 0.0, 18.0, 8.0]])
    near = inside_sampling_region(points, strides, small, torch.tensor([[13.0, 4.0]]), 1.5)[:, 0]
    assert points[near][:, 0].tolist() == [12]


def test_a_point_on_the_border_is_outside():
    points, strides, _ = row_of_points(2)
    box = torch.tensor([[4.0, 0.0, 20.0, 8.0]])
    assert inside_sampling_region(points, strides, box, torch.tensor([[12.0, 4.0]]), None)[:, 0].tolist() == [
        False,
        True,
    ]


def test_an_object_without_centre_attracts_nothing():
    points, strides, _ = row_of_points(2)
    nowhere = torch.full((1, 2), float("nan"))
    assert not inside_sampling_region(points, strides, torch.tensor([[0.0, 0.0, 16.0, 8.0]]), nowhere, 1.5).any()


@pytest.mark.parametrize(("inclusive", "expected"), [(True, [True, True]), (False, [False, False])])
def test_the_limit_itself_belongs_to_both_levels_or_neither(inclusive, expected):
    """max(l, t, r, b) = 64 exactly at both levels' points."""
    ranges = LevelRanges((64.0,), inclusive=inclusive)
    points = torch.tensor([[64.0, 4.0], [64.0, 4.0]])
    found = ranges.responsible(
        points, torch.tensor([8.0, 16.0]), torch.tensor([0, 1]), torch.tensor([[0.0, 0.0, 70.0, 8.0]])
    )
    assert found[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("rule", "level"),
    [
        # Box 200 x 50 seen from its left end: the far side is 190 away -> level 2 (128..256) by distance;
        ("distance", 2),
        # max(h, w) / 2 = 100 -> level 1 (64..128);
        ("side", 1),
        # sqrt(200 * 50) / 2 = 50 -> level 0;
        ("area", 0),
        # floor(5 + log2(100 / 224)) = floor(3.84) = P3 = level 0.
        ("fpn", 0),
    ],
)
def test_level_rules_by_hand(rule, level):
    box = torch.tensor([[0.0, 0.0, 200.0, 50.0]])
    points = torch.tensor([[10.0, 25.0]]).repeat(5, 1)
    strides, levels = torch.tensor([8.0, 16, 32, 64, 128]), torch.arange(5)
    found = LevelRanges(rule=rule).responsible(points, strides, levels, box)[:, 0]
    assert found.tolist() == [i == level for i in range(5)]


def test_fpn_rule_clamps_to_the_pyramid():
    """A 4 px object would go to P-1, a 4000 px one to P9: they take the outermost levels."""
    boxes = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 4000, 4000]])
    points, strides = torch.zeros(5, 2), torch.tensor([8.0, 16, 32, 64, 128])
    found = LevelRanges(rule="fpn").responsible(points, strides, torch.arange(5), boxes)
    assert found.nonzero().tolist() == [[0, 0], [4, 1]]


def test_the_smaller_object_wins():
    allowed = torch.tensor([[True, True], [True, False], [False, False]])
    boxes, points = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 5, 5]]), torch.zeros(3, 2)
    assert preferred_objects(allowed, points, boxes, boxes[:, 2:]).tolist() == [[1], [0], [BACKGROUND]]
    nothing = torch.zeros(3, 0, dtype=torch.bool), points, torch.zeros(0, 4), torch.zeros(0, 2)
    assert preferred_objects(*nothing, count=2).tolist() == [[BACKGROUND] * 2] * 3


def test_the_nearer_objects_win():
    """Centres (5, 5), (2, 2), (9, 9). From (3, 3) their squared distances are 8, 2, 72; from (6, 6) they are 2, 32, 18.

    Only the first two are allowed at (3, 3), all at (6, 6), none at (0, 0). The third object has the least area, 4, then the
    second, 16, then the first, 100.
    """
    points = torch.tensor([[3.0, 3], [6, 6], [0, 0]])
    allowed = torch.tensor([[True, True, False], [True] * 3, [False] * 3])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 4, 4], [8.0, 8, 10, 10]])
    centers = torch.tensor([[5.0, 5], [2, 2], [9, 9]])
    for count in (1, 2, 3):
        near = preferred_objects(allowed, points, boxes, centers, "nearest", count)
        assert near.tolist() == [row[:count] for row in ([1, 0, -1], [0, 2, 1], [-1, -1, -1])]
        small = preferred_objects(allowed, points, boxes, centers, "smallest", count)
        assert small.tolist() == [row[:count] for row in ([1, 0, -1], [2, 1, 0], [-1, -1, -1])]


@given(st.integers(0, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_preference_equals_sorting(objects, count, seed):
    """Of each point's allowed objects, sorted by distance, the first few."""
    random = torch.Generator().manual_seed(seed)
    allowed = torch.rand(6, objects, generator=random) < 0.6
    points, centers = torch.rand(6, 2, generator=random), torch.rand(objects, 2, generator=random)
    found = preferred_objects(allowed, points, torch.rand(objects, 4, generator=random), centers, "nearest", count)
    for row, point, may in zip(found.tolist(), points, allowed, strict=True):
        wanted = sorted(torch.nonzero(may)[:, 0].tolist(), key=lambda n, at=point: float((centers[n] - at).norm()))
        assert row == (wanted + [BACKGROUND] * count)[:count]


def test_retinanet_matching_by_hand():
    """IoU with the object 0..10: 1.0, 0.45 (ignored), 0.3 (background), 0 (background)."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 4.5, 10], [0.0, 0, 3, 10], [50.0, 50, 60, 60]])
    boxes = torch.tensor([[0.0, 0, 10, 10]])
    assert match_by_iou(anchors, boxes).tolist() == [0, IGNORED, BACKGROUND, BACKGROUND]


def test_low_quality_matches_save_a_badly_covered_object():
    """The object's best anchor has IoU 0.3: positive if low quality counts, and an object no anchor touches stays unmatched."""
    anchors = torch.tensor([[0.0, 0, 3, 10], [0.0, 0, 2, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [80.0, 80, 90, 90]])
    assert match_by_iou(anchors, boxes).tolist() == [0, BACKGROUND]
    assert match_by_iou(anchors, boxes, low_quality=None).tolist() == [BACKGROUND, BACKGROUND]
    assert match_by_iou(anchors, boxes, low_quality=0.4).tolist() == [BACKGROUND, BACKGROUND]
    assert match_by_iou(anchors, torch.zeros(0, 4)).tolist() == [BACKGROUND, BACKGROUND]


def test_crowds_are_neither_truth_nor_background():
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]])
    matched = torch.tensor([0, BACKGROUND, BACKGROUND])
    crowd = torch.tensor([[0.0, 0, 16, 8]])
    assert ignore_crowds(matched, points, crowd).tolist() == [0, IGNORED, BACKGROUND]
    assert ignore_crowds(matched, points, None).tolist() == matched.tolist()
