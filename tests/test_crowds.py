"""Several boxes a cell and Set NMS: by hand, against slow loops, and against heads of one box a cell."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from perpixel.engine.export import check_exportable
from perpixel.errors import InputError
from perpixel.models.candidates import Selection
from perpixel.models.detector import Detector, DetectorConfig
from perpixel.models.duplicates import BoxNMS, SetNMS
from perpixel.models.fcos import FCOS
from perpixel.models.heads import BoxHeadConfig
from perpixel.models.retinanet import RetinaNet
from perpixel.models.static import StaticDetector
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.ops.assign import BACKGROUND, IGNORED, LevelRanges
from perpixel.ops.boxes import pairwise_iou
from perpixel.ops.set_nms import set_nms
from perpixel.structures import Targets
from tiny_batches import batch_of

PAIRS = FCOS(class_convs=1, box_convs=1, prefer="nearest", per_cell=2, initial_distance=2.0)


def test_set_nms_by_hand():
    """Boxes of 10 x 10 at x = 0, 2, 1, 40 with scores .9, .8, .7, .6: IoU 80 / 120 of the first two, 90 / 110 with the third.

    In one set the first two spare each other; the third, of another set, falls to the first. Each in a set of its own, only the
    first and the last stay; of another class the third stays too. An IoU of exactly the limit suppresses nothing.
    """
    x = torch.tensor([0.0, 2, 1, 40])
    boxes = torch.stack([x, torch.zeros(4), x + 10, torch.full((4,), 10.0)], dim=1)
    scores, one, other = (
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        torch.zeros(4, dtype=torch.long),
        torch.tensor([0, 0, 1, 0]),
    )
    assert set_nms(boxes, scores, one, other, 0.5, 9).tolist() == [0, 1, 3]
    assert set_nms(boxes, scores, one, torch.arange(4), 0.5, 9).tolist() == [0, 3]
    assert set_nms(boxes, scores, other, torch.arange(4), 0.5, 9).tolist() == [0, 2, 3]
    assert set_nms(boxes, scores, one, other, 0.5, 2).tolist() == [0, 1]
    assert set_nms(boxes[:2], scores[:2], one[:2], torch.arange(2), 80 / 120, 9).tolist() == [0, 1]
    assert set_nms(boxes[:0], scores[:0], one[:0], one[:0], 0.5, 9).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 14), st.integers(1, 14), st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.5]))
def test_set_nms_equals_the_slow_loop_and_nms(count, keep, seed, iou):
    random = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=random)
    boxes = torch.cat([low, low + 0.3 + torch.rand(count, 2, generator=random)], dim=1)
    scores = torch.rand(count, generator=random)
    labels, sets = (torch.randint(n, (count,), generator=random) for n in (2, 4))
    kept: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        rivals = [k for k in kept if labels[k] == labels[row] and sets[k] != sets[row]]
        if all(pairwise_iou(boxes[[k]], boxes[[row]]).item() <= iou for k in rivals):
            kept.append(row)
    assert set_nms(boxes, scores, labels, sets, iou, keep).tolist() == kept[:keep]
    alone = set_nms(boxes, scores, labels, torch.arange(count), iou, keep)
    assert alone.tolist() == batched_nms(boxes, scores, labels, iou)[:keep].tolist()


def test_assignment_of_two_boxes_a_cell_by_hand():
    """One row of three cells of 8 x 8, points 4, 12, 20. A = 0..16 and B = 2..22 across, whole boxes, centres 8 and 12.

    Point 4: A is 4 away, B 8: A first, then B. Point 12: B lies on its centre, A is 4 away. Point 20: in B alone; its second
    location is background, but in a crowd of 18..24, where it counts in no loss.
    """
    head = FCOS(radius=None, levels=LevelRanges(()), prefer="nearest", per_cell=2).build(32, (8,), 1)
    locations = head.locate(((1, 3),))
    assert locations.points[:, 0].tolist() == [4, 4, 12, 12, 20, 20] and locations.anchors_per_cell == 2
    assert locations.counts == (6,) and locations.cells(torch.arange(6)).tolist() == [0, 0, 1, 1, 2, 2]
    boxes, labels = torch.tensor([[0.0, 0, 16, 8], [2.0, 0, 22, 8]]), torch.zeros(2, dtype=torch.long)
    matches = head.assign(locations, [Targets(boxes, labels)])
    assert matches.target.tolist() == [[0, 1, 1, 0, 1, BACKGROUND]]
    crowd = torch.tensor([[18.0, 0, 24, 8]])
    assert head.assign(locations, [Targets(boxes, labels, ignored=crowd)]).target.tolist() == [[0, 1, 1, 0, 1, IGNORED]]
    assert head.allowed(locations, Targets(boxes, labels)).tolist() == [[True, True], [True, True], [False, True]]


def built(head: BoxHeadConfig = PAIRS, duplicates: BoxNMS | SetNMS = SetNMS()) -> Detector:
    backbone = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
    selection = Selection(threshold=0.001, iou=0.5, keep=20)
    config = DetectorConfig(
        backbone=backbone, neck=FPN(channels=32), head=head, selection=selection, duplicates=duplicates
    )
    return config.build(classes=3)


@pytest.mark.parametrize("quality", ["centerness", "iou", "none", "from_box"])
def test_each_box_of_a_cell_is_a_head_of_its_own(quality):
    """The k-th outputs of every cell are those of a head of one box a cell that has the k-th part of the predictors' weights."""
    torch.manual_seed(0)
    pair = replace(PAIRS, quality=quality).build(32, (8, 16, 32, 64, 128), 3)
    pyramid = tuple(torch.randn(2, 32, side, side + 1) for side in (8, 4, 2, 1, 1))
    both = pair(pyramid)
    for k in range(2):
        single = replace(PAIRS, quality=quality, per_cell=1).build(32, (8, 16, 32, 64, 128), 3)
        weights = pair.state_dict()
        for name, rows in (("class_logits", 3), ("distances", 4), ("quality", 1)):
            for kind in ("weight", "bias"):
                if f"{name}.{kind}" in weights:
                    weights[f"{name}.{kind}"] = weights[f"{name}.{kind}"][k * rows : (k + 1) * rows]
        single.load_state_dict(weights)
        alone = single(pyramid)
        for field in ("logits", "boxes", "regression", "quality"):
            if getattr(alone, field) is not None:
                torch.testing.assert_close(getattr(both, field)[:, k::2], getattr(alone, field))
        for field in ("points", "strides", "levels"):
            assert torch.equal(getattr(both.locations, field)[k::2], getattr(alone.locations, field))


@pytest.mark.parametrize("objects", [(4, 3), (0, 3), (0, 0)])
def test_two_boxes_a_cell_learn(objects):
    model = built().train()
    losses = model.loss(batch_of(objects))
    assert set(losses) == {"class", "box", "centerness"} and all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_cell_learns_two_objects_and_set_nms_keeps_them():
    """Two boxes with an IoU of 0.71: NMS at 0.5 leaves one of them, Set NMS both; with one box a cell it is as NMS."""
    boxes = torch.tensor([[20.0, 20, 68, 76], [28.0, 20, 76, 76]])
    assert 0.70 < pairwise_iou(boxes[:1], boxes[1:]).item() < 0.72
    batch = batch_of((1, 1))
    batch = replace(batch, targets=(Targets(boxes, torch.zeros(2, dtype=torch.long)),) * 2)
    found = {}
    for per_cell in (1, 2):
        torch.manual_seed(0)
        model = built(replace(PAIRS, per_cell=per_cell)).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            sum(model.loss(batch).values()).backward()
            optimizer.step()
        for policy in (BoxNMS(), SetNMS()):
            model.duplicates = policy
            one = model.eval().predict(replace(batch, targets=None))[0]
            sure = one.boxes[one.scores > 0.3]
            found[per_cell, type(policy)] = (pairwise_iou(sure, boxes) > 0.8).any(dim=0).sum().item()
    assert found == {(1, BoxNMS): 1, (1, SetNMS): 1, (2, BoxNMS): 1, (2, SetNMS): 2}


def test_set_nms_is_nms_for_one_box_a_cell():
    torch.manual_seed(1)
    model = built(replace(PAIRS, per_cell=1))
    torch.nn.init.normal_(model.box_head.class_logits.weight, std=0.3)  # pyright: ignore
    batch = replace(batch_of((1, 1)), targets=None)
    for policy in (SetNMS(), BoxNMS()):
        model.duplicates = policy
        found = model.eval().predict(batch)
        if isinstance(policy, SetNMS):
            wanted = found
    assert all(len(one) == 20 for one in wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores)


def test_export_takes_two_boxes_a_cell_and_refuses_set_nms(tmp_path):
    torch.manual_seed(2)
    model = built(duplicates=BoxNMS()).eval()
    torch.nn.init.normal_(model.box_head.class_logits.weight, std=0.3)  # pyright: ignore
    images = torch.randint(256, (2, 3, 96, 96)).float()
    with torch.inference_mode():
        found = StaticDetector(model)(images, torch.zeros(1))
    batch = replace(batch_of((1, 1)), targets=None, images=images, sizes=((96, 96),) * 2)
    for image, wanted in enumerate(model.predict(batch)):
        rows = found["image"] == image
        assert len(wanted) == rows.sum() == 20
        torch.testing.assert_close(found["boxes"][rows], wanted.boxes.clamp(0, 96))
        torch.testing.assert_close(found["scores"][rows], wanted.scores)
    model.duplicates = SetNMS()
    with pytest.raises(InputError, match=r"set model\.duplicates\.kind=BoxNMS"):
        check_exportable(model, tmp_path / "model.onnx")


def test_settings_that_do_not_fit_together():
    with pytest.raises(InputError, match=r"model\.head\.per_cell=0"):
        built(replace(PAIRS, per_cell=0))
    with pytest.raises(InputError, match=r"SetNMS keeps all boxes of a cell"):
        built(RetinaNet(convs=1))
