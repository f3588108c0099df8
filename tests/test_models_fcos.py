"""FCOS by hand: decoding, assignment, each loss, and every ablation as a value."""

import math
from dataclasses import replace

import pytest
import torch

from perpixel.errors import InputError
from perpixel.models.fcos import FCOS
from perpixel.ops.assign import LevelRanges
from perpixel.structures import DenseOutputs, Targets

ONE_LEVEL = LevelRanges(())


def targets_of(boxes, labels, **more):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Targets(boxes, torch.tensor(labels, dtype=torch.long), **more)


def head_of(config, classes=2, strides=(8,)):
    return replace(config, levels=replace(config.levels, limits=config.levels.limits[: len(strides) - 1])).build(
        32, strides, classes
    )


def outputs_of(head, logits, distances, quality=None, shapes=((1, 2),)):
    """Dense outputs with given tables for an input of one row of two cells of stride 8: points (4, 4), (12, 4)."""
    locations = head.locate(shapes)
    tables = [torch.tensor(t, dtype=torch.float32)[None].requires_grad_() for t in (logits, distances)]
    boxes = torch.cat([locations.points - tables[1][..., :2] * 8, locations.points + tables[1][..., 2:] * 8], dim=-1)
    quality = None if quality is None else torch.tensor(quality, dtype=torch.float32)[None]
    return DenseOutputs(tables[0], boxes, quality, tables[1], (), (), locations)


def losses_of(config, logits, distances, quality, target):
    head = head_of(config)
    outputs = outputs_of(head, logits, distances, quality)
    return head.loss(outputs, head.assign(outputs.locations, [target]), [target])


# One object (0, 0, 8, 8) of class 1 around point (4, 4): distances 4, 4, 4, 4 = half a stride each, centre-ness 1.
CENTRED = targets_of([[0, 0, 8, 8]], [1])
# One object (0, 0, 16, 8): from (4, 4) 4, 4, 12, 4 -> centre-ness sqrt(1/3); from (12, 4) 12, 4, 4, 4 -> the same.
WIDE = targets_of([[0, 0, 16, 8]], [1])
ZEROS = [[0.0, 0.0], [0.0, 0.0]]


def test_losses_by_hand():
    """Logits 0, distances exact, quality logit 0, one positive.

    Focal: the positive entry .25 * .25 * log 2, three negatives .75 * .25 * log 2 each. GIoU loss 0. BCE at 0: log 2.
    """
    losses = losses_of(FCOS(), ZEROS, [[0.5] * 4, [1.0] * 4], [0.0, 0.0], CENTRED)
    torch.testing.assert_close(losses["class"], torch.tensor((0.0625 + 3 * 0.1875) * math.log(2)))
    torch.testing.assert_close(losses["box"], torch.tensor(0.0))
    torch.testing.assert_close(losses["centerness"], torch.tensor(math.log(2)))


def test_giou_smoothing_and_centerness_weights_by_hand():
    """Two positives of centre-ness c = sqrt(1/3). First predicted exactly; second predicts (1, .5, .5, .5) where
    (1.5, .5, .5, .5) is true: area 1.5 in a hull of 2. IoU (1.5 + 1) / (2 + 1) = 5/6, GIoU = 5/6, loss 1/6.

    Weighted mean: c (0 + 1/6) / 2c = 1/12. Without smoothing the loss is 1 - 3/4 and the mean 1/8; -log(3/4) / 2 for IoU.
    """
    distances = [[0.5, 0.5, 1.5, 0.5], [1.0, 0.5, 0.5, 0.5]]
    smooth = losses_of(FCOS(), ZEROS, distances, [0.0, 0.0], WIDE)
    torch.testing.assert_close(smooth["box"], torch.tensor(1 / 12))
    plain = losses_of(FCOS(iou_smoothing=0.0), ZEROS, distances, [0.0, 0.0], WIDE)
    torch.testing.assert_close(plain["box"], torch.tensor(1 / 8))
    even = losses_of(FCOS(iou_smoothing=0.0, box_weight="none"), ZEROS, distances, [0.0, 0.0], WIDE)
    torch.testing.assert_close(even["box"], torch.tensor(1 / 8))
    iou = losses_of(FCOS(iou_smoothing=0.0, box_loss="iou"), ZEROS, distances, [0.0, 0.0], WIDE)
    torch.testing.assert_close(iou["box"], torch.tensor(-math.log(0.75) / 2))


def test_quality_branches_by_hand():
    """Quality logits 0. L1 to centre-ness c: |1/2 - c| each. IoU branch: truth 1 and 3/4, BCE at logit 0 is log 2 each."""
    distances = [[0.5, 0.5, 1.5, 0.5], [1.0, 0.5, 0.5, 0.5]]
    l1 = losses_of(FCOS(quality_loss="l1"), ZEROS, distances, [0.0, 0.0], WIDE)
    torch.testing.assert_close(l1["centerness"], torch.tensor(math.sqrt(1 / 3) - 0.5))
    iou = losses_of(FCOS(quality="iou", box_weight="none", iou_smoothing=0.0), ZEROS, distances, [2.0, 2.0], WIDE)
    # BCE(2, t) = log(1 + e^2) - 2 t, mean over t = 1, 3/4.
    torch.testing.assert_close(iou["iou"], torch.tensor(math.log1p(math.exp(2)) - 2 * 0.875))
    assert set(losses_of(FCOS(quality="none"), ZEROS, distances, None, WIDE)) == {"class", "box"}
    assert set(losses_of(FCOS(quality="from_box"), ZEROS, distances, [0.0, 0.0], WIDE)) == {"class", "box"}


def test_no_object_gives_zero_box_losses_and_a_finite_gradient():
    nothing = targets_of([], [])
    head = head_of(FCOS())
    outputs = head((torch.randn(1, 32, 1, 2),))
    losses = head.loss(outputs, head.assign(outputs.locations, [nothing]), [nothing])
    assert losses["box"] == 0 and losses["centerness"] == 0 and losses["class"] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_the_smaller_object_wins_and_the_region_follows_the_centre():
    """(0, 0, 32, 8) has centre 16: radius 1.5 reaches points 4 < x < 28, strictly; (8, 0, 16, 8) takes the point 12."""
    head = head_of(FCOS())
    target = targets_of([[0, 0, 32, 8], [8, 0, 16, 8]], [0, 1])
    matched = head.assign(head.locate(((1, 4),)), [target]).target
    assert matched.tolist() == [[-1, 1, 0, -1]]
    whole = head_of(FCOS(radius=None)).assign(head.locate(((1, 4),)), [target]).target
    assert whole.tolist() == [[0, 1, 0, 0]]


def test_mask_centres_move_the_region():
    """The same box with its mass at (26, 4): points within 12 of 26 are 20 and 28; an empty mask (NaN) attracts nothing."""
    locations = head_of(FCOS()).locate(((1, 4),))
    target = targets_of(
        [[0, 0, 32, 8], [0, 0, 32, 8]], [0, 0], centers=torch.tensor([[26.0, 4.0], [torch.nan, torch.nan]])
    )
    assert head_of(FCOS(center="mask")).assign(locations, [target]).target.tolist() == [[-1, -1, 0, 0]]
    assert head_of(FCOS(center="box")).assign(locations, [target]).target.tolist() == [[-1, 0, 0, -1]]


def test_crowds_count_for_nothing():
    head = head_of(FCOS())
    crowd = targets_of([[0, 0, 8, 8]], [1], ignored=torch.tensor([[8.0, 0, 16, 8]]))
    outputs = outputs_of(head, ZEROS, [[0.5] * 4] * 2, [0.0, 0.0])
    matches = head.assign(outputs.locations, [crowd])
    assert matches.target.tolist() == [[0, -2]]
    # Only the first location's two entries remain: one positive, one negative.
    loss = head.loss(outputs, matches, [crowd])["class"]
    torch.testing.assert_close(loss, torch.tensor((0.0625 + 0.1875) * math.log(2)))


def test_boxes_are_decoded_from_points_and_strides():
    head = head_of(FCOS(norm="none"), strides=(8, 16))
    with torch.no_grad():
        head.distances.bias.fill_(0.5)
        head.distances.weight.zero_()
        head.scales[1].scale.fill_(2.0)
    outputs = head((torch.randn(1, 32, 1, 2), torch.randn(1, 32, 1, 1)))
    # Half a stride of 8 around (4, 4) and (12, 4); at stride 16 a whole stride around (8, 8).
    assert outputs.boxes[0].tolist() == [[0, 0, 8, 8], [8, 0, 16, 8], [-8, -8, 24, 24]]
    assert outputs.regression.min() >= 0


def test_centerness_from_the_box_itself():
    """Distances (.5, .5, 1.5, .5): centre-ness sqrt(1/3) without a branch."""
    head = head_of(FCOS(quality="from_box", norm="none", level_scales=False))
    with torch.no_grad():
        head.distances.weight.zero_()
        head.distances.bias.copy_(torch.tensor([0.5, 0.5, 1.5, 0.5]))
    quality = head((torch.randn(1, 32, 1, 1),)).quality
    torch.testing.assert_close(quality.sigmoid(), torch.full((1, 1), math.sqrt(1 / 3)))


def test_the_branch_reads_the_tower_it_is_told():
    pyramid = (torch.randn(1, 32, 2, 2),)
    for tower, other in (("box", "class_tower"), ("class", "box_tower")):
        head = head_of(FCOS(quality_tower=tower, class_convs=1, box_convs=1))
        before = head(pyramid).quality
        torch.nn.init.zeros_(getattr(head, other)[0].weight)
        assert torch.equal(head(pyramid).quality, before)


def test_limits_must_fit_the_pyramid():
    with pytest.raises(InputError, match="needs 4 numbers for 5 pyramid levels"):
        FCOS(levels=ONE_LEVEL).build(32, (8, 16, 32, 64, 128), 1)


def test_training_may_start_at_boxes_of_a_size():
    """With the last layer's weights at nothing, every box is the starting distance in all directions: half, or two strides."""
    for start in (0.5, 2.0):
        head = head_of(FCOS(initial_distance=start, norm="none"))
        torch.nn.init.zeros_(head.distances.weight)
        assert head((torch.randn(1, 32, 1, 1),)).boxes[0].tolist() == [[4 - 8 * start] * 2 + [4 + 8 * start] * 2]
