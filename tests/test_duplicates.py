"""NMS of masks by hand and against a slow loop; CondInst without boxes: what it predicts, refuses and learns from."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outlines import overlaps, taught, triangle_and_disc
from parity.whole_masks import resize_image_masks
from perpixel.errors import InputError
from perpixel.models import duplicates as module
from perpixel.models.candidates import Selection
from perpixel.models.condinst import CondInst
from perpixel.models.detector import DetectorConfig
from perpixel.models.duplicates import BoxNMS, MaskNMS
from perpixel.models.fcos import FCOS
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.ops.boxes import pairwise_iou
from perpixel.ops.mask_nms import mask_iou, mask_nms, tight_boxes
from perpixel.structures import Batch, BoxMasks, Candidates, ImageMasks, Targets


def strips(*spans, width=10):
    """Masks of one row of pixels, each from its first to before its last."""
    return torch.stack([(torch.arange(width) >= a) & (torch.arange(width) < b) for a, b in spans])[:, None]


def test_overlaps_by_hand():
    """Of 0..4, 1..5, 8..9: the first two share 3 of 5 pixels; an empty mask overlaps nothing, itself neither."""
    found = mask_iou(strips((0, 4), (1, 5), (8, 9), (3, 3)))
    expected = torch.tensor([[1, 0.6, 0, 0], [0.6, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(found, expected)


def test_parts_of_the_pixels_add_up():
    masks = torch.rand(7, 9, 11, generator=torch.Generator().manual_seed(0)) < 0.4
    assert torch.equal(mask_iou(masks, chunk_bytes=1), mask_iou(masks))


def test_suppression_by_hand():
    """Scores 0.9, 0.8, 0.7 of strips 0..4, 1..5, 2..6: neighbours overlap by 3 / 5, the outer two by 2 / 6.

    At 0.5 the first takes the second, which then takes nobody: the third stays. At 0.6 nothing is larger: all stay.
    A fourth equal to the first stays where its class differs; a fifth without pixels falls.
    """
    masks = strips((2, 6), (0, 4), (1, 5), (0, 4), (7, 7))
    scores, labels = torch.tensor([0.7, 0.9, 0.8, 0.3, 0.95]), torch.tensor([0, 0, 0, 1, 0])
    assert mask_nms(masks, scores, labels, 0.5).tolist() == [1, 0, 3]
    assert mask_nms(masks, scores, labels, 0.6).tolist() == [1, 2, 0, 3]
    assert mask_nms(masks, scores, torch.zeros(5, dtype=torch.long), 0.5).tolist() == [1, 0]
    assert mask_nms(masks[:0], scores[:0], labels[:0], 0.5).tolist() == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.5]))
def test_suppression_equals_the_slow_loop(count: int, seed: int, iou: float):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 4, 5, generator=generator) < 0.5
    scores = torch.rand(count, generator=generator)
    labels = torch.randint(2, (count,), generator=generator)
    kept: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        rivals = [k for k in kept if labels[k] == labels[row]]
        union = [(masks[k] | masks[row]).sum() for k in rivals]
        shares = [(masks[k] & masks[row]).sum() / u for k, u in zip(rivals, union, strict=True)]
        if masks[row].any() and all(share <= iou for share in shares):
            kept.append(row)
    assert mask_nms(masks, scores, labels, iou).tolist() == kept


def test_tight_boxes_by_hand():
    """Pixels (y 1, x 2) and (y 3, x 5): columns 2 to 5 and rows 1 to 3, pixel i covering [i, i + 1)."""
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 3, 5] = True
    assert tight_boxes(masks).tolist() == [[2, 1, 6, 4], [0, 0, 0, 0]]
    assert tight_boxes(masks[:0]).shape == (0, 4)


def candidates(images, scores, labels):
    rows, image = torch.arange(len(images)), torch.tensor(images, dtype=torch.long)
    labels, boxes = torch.tensor(labels, dtype=torch.long), torch.zeros(len(images), 4)
    return Candidates(
        image, rows, rows, rows, boxes[:, :2], boxes[:, 0], boxes, boxes, None, labels, torch.tensor(scores)
    )


def drawn(blocks, stride=4, height=6, width=8):
    """A predictor that gives candidate i the i-th block of places, as certain."""
    values = torch.zeros(len(blocks), height, width)
    for value, (y1, y2, x1, x2) in zip(values, blocks, strict=True):
        value[y1:y2, x1:x2] = 1
    return lambda found: ImageMasks(values[found.location], stride)


def test_each_image_for_itself(monkeypatch: pytest.MonkeyPatch):
    """Rows 0, 1 of image 0 are alike, so 1 falls; row 2 is as large but of image 1; row 3 lies in image 1's padding alone.

    Image 1 is 24 x 20 pixels: of columns of 4 pixels only those up to 4 have their middle, 4 x 4 + 2, inside.
    """
    block = (1, 3, 1, 4)
    predict = drawn([block, block, block, (1, 3, 5, 8)])
    found = candidates([0, 0, 1, 1], [0.9, 0.8, 0.5, 0.95], [0, 0, 0, 0])
    for at_once in (32, 1):
        monkeypatch.setattr(module, "AT_ONCE", at_once)
        kept = MaskNMS(0.5).choose(found, predict, [(24, 32), (24, 20)])
        assert kept.location.tolist() == [0, 2]
        assert kept.scores is not None
        assert kept.scores.tolist() == pytest.approx([0.9, 0.5])
        # Where the enlarged mask is above 1/2: between the middles of the last place inside and the first outside.
        whole = resize_image_masks(predict(found).values[:1], 4, (24, 32), (24, 32))
        assert torch.equal(kept.boxes[0], tight_boxes(whole)[0])
        assert kept.boxes[0].tolist() == pytest.approx([4, 4, 16, 12], abs=1)
    assert MaskNMS(0.5, keep=1).choose(found, predict, [(24, 32), (24, 32)]).location.tolist() == [0, 3]
    nobody = found.rows(torch.zeros(4, dtype=torch.bool))
    assert len(MaskNMS().choose(nobody, predict, [(24, 32), (24, 20)])) == 0


def test_masks_of_boxes_are_refused():
    with pytest.raises(InputError, match=r"MaskNMS compares masks of the whole image, .* predicts BoxMasks"):
        MaskNMS().choose(candidates([0], [0.5], [0]), lambda found: BoxMasks(torch.zeros(len(found), 2, 2)), [(8, 8)])


HEADS = [FCOS(class_convs=1, box_convs=1, box_loss="none", center="mask"), RetinaNet(convs=1)]


def built(
    head,
    duplicates: BoxNMS | MaskNMS = MaskNMS(0.5, keep=5),
    instance: CondInst | None = CondInst(mask_width=16, mask_convs=1),
):
    backbone = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
    selection = Selection(threshold=0.001, threshold_on="product")
    config = DetectorConfig(
        backbone=backbone,
        neck=FPN(channels=64),
        head=head,
        instance=instance,
        selection=selection,
        duplicates=duplicates,
    )
    return config.build(classes=2)


def batch_of(counts):
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 6:40, 4:44] = masks[1, 20:60, 30:90] = True
    boxes, centers = tight_boxes(masks), torch.tensor([[23.5, 22.5], [59.5, 39.5]])
    targets = tuple(Targets(boxes[:n], torch.arange(n), masks[:n], centers[:n]) for n in counts)
    generator = torch.Generator().manual_seed(sum(counts))
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8, generator=generator)
    return Batch(images, ((64, 96), (64, 90)), ((64, 96),) * 2, targets)


@pytest.mark.parametrize("head", HEADS, ids=lambda c: type(c).__name__)
def test_a_detector_without_box_nms(head):
    """Finite losses and gradients with objects in both images, one, none; without the box branch no loss and no weight of it."""
    model = built(head).train()
    for counts in ((2, 1), (0, 2), (0, 0)):
        model.zero_grad(set_to_none=True)
        losses = model.loss(batch_of(counts))
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert ("box" in losses) == model.box_head.predicts_boxes == isinstance(head, RetinaNet)
        sum(losses.values(), torch.zeros(())).backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
    if isinstance(head, FCOS):
        assert not [n for n, _ in model.named_parameters() if "distances" in n or "scales" in n]
    assert isinstance(model.instance_head, torch.nn.Module)
    torch.nn.init.normal_(model.instance_head.controller.weight, std=0.3)
    for found, size in zip(model.eval().predict(batch_of((0, 0))), ((64, 96), (64, 90)), strict=True):
        assert 0 < len(found) <= 5
        assert isinstance(found.masks, ImageMasks)
        whole = resize_image_masks(found.masks.values, found.masks.stride, size, size)
        assert torch.equal(found.boxes, tight_boxes(whole))
        same = (found.labels[:, None] == found.labels) & ~torch.eye(len(found), dtype=torch.bool)
        inside = found.masks.values[:, : size[0] // 4, : -(-(size[1] - 2) // 4)] > 0.5
        assert (mask_iou(inside)[same] <= 0.5).all()
    model.selection = Selection(threshold=1.0)
    assert [len(found) for found in model.predict(batch_of((0, 0)))] == [0, 0]


def test_settings_that_do_not_fit_together():
    with pytest.raises(InputError, match=r"set model\.duplicates\.kind=MaskNMS"):
        built(HEADS[0], BoxNMS())
    with pytest.raises(InputError, match=r"MaskNMS needs masks"):
        built(HEADS[1], instance=None)
    with pytest.raises(InputError, match=r"model\.head\.quality=iou is made from the box"):
        built(replace(HEADS[0], quality="iou"))


def test_it_learns_without_boxes():
    """A triangle and a disc: one sure detection each, masks that overlap by more than 0.85, the disc's box by more than 0.85.

    The triangle's box is not judged: it ends at the mask's thinnest tip, where a mask of stride 4 loses pixels that its overlap
    hardly feels (0.87 to 0.90 over three seeds) and its box does (0.67 to 0.78).
    Without suppression many locations are sure of either: those that fell.
    """
    torch.manual_seed(0)
    batch = triangle_and_disc(images=2)
    target = replace(batch.targets[0], boxes=tight_boxes(batch.targets[0].masks))
    batch = replace(batch, targets=(target, target))
    model = built(HEADS[0])
    found = taught(model, batch, steps=240, rate=2e-3, last=0.3)
    model.duplicates, model.selection = BoxNMS(), replace(model.selection, iou=1.0)
    assert (model.predict(batch)[0].scores > 0.5).sum() > 2
    assert (found.scores > 0.5).sum() == 2
    assert overlaps(found, batch).min() > 0.85
    assert pairwise_iou(found.boxes[found.labels == 1][:1], target.boxes[1:]) > 0.85


def test_only_the_best_enter():
    """Three masks apart; two may enter, those of scores 0.9 and 0.7."""
    predict = drawn([(0, 2, 0, 2), (3, 5, 3, 5), (0, 2, 5, 7)])
    found = candidates([0, 0, 0], [0.5, 0.9, 0.7], [0, 0, 0])
    assert MaskNMS(enter=2).choose(found, predict, [(24, 32)]).location.tolist() == [1, 2]
