"""Best possible recall and ambiguity, counted by hand on three boxes."""

import torch

from perpixel.models.analysis import FULL_PYRAMID, pyramid_shapes, reach, settings_of
from perpixel.models.fcos import FCOS
from perpixel.models.retinanet import RetinaNet
from perpixel.ops.assign import LevelRanges
from perpixel.structures import Targets


def three_boxes():
    """On a 32 x 32 input with one level of stride 8 (points at 4, 12, 20, 28 in x and y):

    A = (0, 0, 24, 24) holds 3 x 3 points; B = (8, 8, 24, 24) holds the 2 x 2 points 12, 20, all of them inside A;
    C = (5, 5, 11, 11) holds no point.
    """
    boxes = torch.tensor([[0.0, 0, 24, 24], [8.0, 8, 24, 24], [5.0, 5, 11, 11]])
    return Targets(boxes, torch.zeros(3, dtype=torch.long)), (32, 32)


def test_whole_boxes_by_hand():
    """9 positive points, 4 of them in two boxes; the smaller B takes those 4, A keeps 5, C has none: recall 2/3."""
    found = reach("", FCOS(radius=None, levels=LevelRanges(())), (8,), [three_boxes()])
    assert (found.objects, found.recalled, found.ambiguous) == (3, 2, (5, 4, 0, 0))
    assert found.best_possible_recall == 2 / 3 and found.ambiguity == (5 / 9, 4 / 9, 0.0, 0.0)


def test_centre_sampling_by_hand():
    """Radius 0.6 strides reaches 4.8 px: from A's centre (12, 12) only the point (12, 12); from B's (16, 16) all of 12, 20.

    The point (12, 12) is allowed both and goes to B, so A is lost: recall 1/3, one ambiguous location of four.
    """
    found = reach("", FCOS(radius=0.6, levels=LevelRanges(())), (8,), [three_boxes()])
    assert (found.recalled, found.ambiguous) == (1, (3, 1, 0, 0))


def test_crowds_by_hand():
    """Four equal boxes (0, 0, 16, 16) hold the 2 x 2 points 4, 12; a fifth box is apart.

    Four locations are allowed four objects ("more"), those of the fifth box (16, 16, 32, 32), points 20, 28, one each. Of equal
    boxes the first of them takes all four locations, so one box a cell recalls 2 of 5; three boxes a cell recall 4.
    """
    boxes = torch.tensor([[0.0, 0, 16, 16]] * 4 + [[16.0, 16, 32, 32]])
    sample = Targets(boxes, torch.zeros(5, dtype=torch.long)), (32, 32)
    for per_cell, recalled in ((1, 2), (3, 4), (5, 5)):
        head = FCOS(radius=None, levels=LevelRanges(()), prefer="nearest", per_cell=per_cell)
        found = reach("", head, (8,), [sample])
        assert (found.objects, found.recalled, found.ambiguous) == (5, recalled, (4, 0, 0, 4))


def test_anchors_by_hand():
    """Anchors of 16 px on points 0, 8, 16, 24: B = (8, 8, 24, 24) is exactly the anchor at (16, 16), IoU 1.

    A's best anchor is the same one (256 / 576 = 0.44 with it and with those at (8, 8), (8, 16), (16, 8) that also lie inside
    A): three of the four stay A's low-quality matches. C overlaps the anchor at (8, 8) most: 36 / 256 = 0.14, but that
    anchor overlaps A more and keeps it. So: without low-quality matches only B (1/3); from 0.4 on also A (2/3).
    """
    head = RetinaNet(scales=(2.0,), ratios=(1.0,))
    recalled = {}
    for low_quality in (None, 0.4, 0.0):
        config = RetinaNet(scales=head.scales, ratios=head.ratios, low_quality=low_quality)
        recalled[low_quality] = reach("", config, (8,), [three_boxes()]).recalled
    assert recalled == {None: 1, 0.4: 2, 0.0: 2}


def test_every_row_of_the_tables_is_counted():
    for head in (FCOS(), RetinaNet()):
        rows = [
            reach(name, config, strides, [three_boxes()])
            for name, (config, strides) in settings_of(head, FULL_PYRAMID).items()
        ]
        assert len(rows) == 8 and all(row.objects == 3 for row in rows)
    assert pyramid_shapes((800, 1088), (8, 64, 128)) == ((100, 136), (13, 17), (7, 9))
