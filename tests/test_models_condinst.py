"""CondInst by hand: coordinates, targets, the controller at candidates, memory, ablations; on FCOS and on RetinaNet."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from outlines import overlaps, taught, triangle_and_disc
from perpixel.config import from_dict, to_dict
from perpixel.errors import InputError
from perpixel.models import condinst
from perpixel.models.candidates import BestPositives, Selection, positives
from perpixel.models.condinst import CondInst, semantic_labels, semantic_loss
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.heads import InstanceHeadConfig
from perpixel.models.mask_truth import masks_of
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.nn.mask_branch import MaskBranch
from perpixel.ops.dynamic import apply_filters, split_filters
from perpixel.ops.losses import focal_loss
from perpixel.structures import Batch, Candidates, Targets

BOX_HEADS = [FCOS(class_convs=1, box_convs=1, center="mask"), RetinaNet(convs=1)]
SMALL = CondInst(mask_width=16, mask_convs=1)


def batch_of(objects):
    """Two 64 x 96 images with the given number of objects each, every one an ellipse in its box."""
    generator = torch.Generator().manual_seed(sum(objects))
    targets = []
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    for count in objects:
        low = torch.rand(count, 2, generator=generator) * torch.tensor([50.0, 30.0])
        size = 12 + torch.rand(count, 2, generator=generator) * 20
        center = low + size / 2
        relative = [
            (v[None] - c[:, None, None]) / s[:, None, None]
            for v, c, s in zip((x, y), center.T, size.T / 2, strict=True)
        ]
        masks = relative[0].square() + relative[1].square() < 1
        labels = torch.randint(3, (count,), generator=generator)
        targets.append(Targets(torch.cat([low, low + size], dim=1), labels, masks=masks, centers=center - 0.5))
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8, generator=generator)
    return Batch(images, ((64, 96), (60, 90)), ((64, 96),) * 2, tuple(targets))


def build(box_head, instance=SMALL):
    backbone = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
    selection = Selection(threshold=0.001, keep=7)
    config = DetectorConfig(
        backbone=backbone, neck=FPN(channels=64), head=box_head, instance=instance, selection=selection
    )
    return config.build(classes=3)


def candidates_at(points, strides, images=None):
    count = len(points)
    rows = torch.zeros(count, dtype=torch.long)
    boxes = torch.zeros(count, 4)
    images = rows if images is None else torch.tensor(images)
    points = torch.tensor(points).reshape(-1, 2)
    return Candidates(images, rows, rows, rows, points, torch.tensor(strides), boxes, boxes, None, rows, target=rows)


def coordinates_of(head, candidates, height, width):
    """O of 5.2.1, written out: (n, 2, h, w)."""
    scale, offset, places = head.coordinates(candidates, torch.zeros(1, 8, height, width))
    return scale[:, :, None, None] * places + offset[:, :, None, None]


def test_relative_coordinates_by_hand():
    """A candidate at (20, 12) of stride 8: its size of interest is 64.

    Places of a map of 2 x 3 stand at x = 4, 12, 20 and y = 4, 12; (20 - 4) / 64 = 0.25, (12 - 4) / 64 = 0.125. One of
    stride 128 has 1024 below: (20 - 4) / 1024 = 0.015625.
    """
    head = SMALL.build(64, 64, (8, 16, 32), 3)
    found = coordinates_of(head, candidates_at([[20.0, 12.0], [20.0, 12.0]], [8.0, 128.0]), 2, 3)
    assert found.shape == (2, 2, 2, 3)
    assert found[0, 0].tolist() == [[0.25, 0.125, 0]] * 2
    assert found[0, 1].tolist() == [[0.125] * 3, [0] * 3]
    assert found[1, 0, 0, 0] == 0.015625


def test_absolute_coordinates_by_hand():
    """Over an input of 24 x 16 pixels the middle of the first cell is at 4: 2 x 4 / 24 - 1 = -2/3 and 2 x 4 / 16 - 1 = -1/2."""
    head = replace(SMALL, coordinates="absolute").build(64, 64, (8, 16, 32), 3)
    found = coordinates_of(head, candidates_at([[20.0, 12.0]], [8.0]), 2, 3)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([-2 / 3, -0.5]))
    torch.testing.assert_close(found[0, :, 1, 2], torch.tensor([2 / 3, 0.5]))


def test_mask_branch_adds_coarser_levels_enlarged():
    """With convolutions that pass their input on, P4 = 1 everywhere adds 1 to P3; a side of 3 becomes 6, cut to 5."""
    branch = MaskBranch(4, (8, 16), 4, 0, 4).eval()
    for refine in branch.refine:
        torch.nn.init.dirac_(refine[0].weight)
    torch.nn.init.dirac_(branch.tower[0].weight)
    finest = torch.rand(1, 4, 4, 5)
    out = branch((finest, torch.ones(1, 4, 2, 3)))
    # BatchNorm of fresh statistics divides by sqrt(1 + 1e-5).
    torch.testing.assert_close(out, (finest + 1) / (1 + 1e-5) ** 0.5)


@pytest.mark.parametrize("box_head", BOX_HEADS, ids=lambda c: type(c).__name__)
def test_filters_at_candidates_equal_the_dense_controller(box_head):
    """And every mask the slow way: one instance after the other, its own network over its own coordinates."""
    model = build(box_head).eval()
    torch.nn.init.normal_(model.instance_head.controller.weight, std=0.2)
    batch, head = batch_of((3, 2)), model.instance_head
    with torch.no_grad():
        pyramid = model.neck(model.backbone(model.normalized(batch)))
        outputs = model.box_head(pyramid)
        dense = head(pyramid, outputs)
        found = positives(outputs, model.box_head.assign(outputs.locations, batch.truth()), batch.truth())
        assert len(found) > 5 and found.image.unique().tolist() == [0, 1]
        logits = head.logits(dense, found)
        theta = [F.conv2d(tower, head.controller.weight, head.controller.bias, padding=1) for tower in outputs.towers]
        for row in range(len(found)):
            image, level = int(found.image[row]), int(found.level[row])
            numbers = theta[level][image].flatten(1)[:, found.cell[row]]
            inputs = [coordinates_of(head, found.rows(torch.tensor([row])), 8, 12)[0], dense.features[image]]
            small = apply_filters(torch.cat(inputs)[None], split_filters(numbers[None], head.channels))
            large = condinst.aligned_bilinear(small, 2)[0, 0]
            # Sums of products that cancel: rounding is in proportion to the largest.
            assert (logits[row] - large).abs().max() < 1e-5 * logits.abs().max()


def test_a_few_candidates_at_a_time_change_nothing(monkeypatch):
    model = build(BOX_HEADS[0]).eval()
    batch = replace(batch_of((1, 1)), targets=None)
    at_once = model.predict(batch)
    monkeypatch.setattr(condinst, "CHUNK_BYTES", 1)
    sizes = []
    monkeypatch.setattr(condinst, "apply_filters", lambda x, layers: sizes.append(len(x)) or apply_filters(x, layers))
    for one, other in zip(model.predict(batch), at_once, strict=True):
        torch.testing.assert_close(one.masks.values, other.masks.values)
    assert sizes == [1] * 14


def test_targets_are_the_middle_pixels():
    """Stride 4: pixels (2, 2), (2, 6) ... of each mask; the mask of candidate i is its own image's row `target`."""
    masks = torch.zeros(3, 8, 12, dtype=torch.bool)
    masks[0, 2, 2] = masks[1, 6, 10] = masks[2, 3, 3] = True
    boxes, labels = torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)
    targets = (Targets(boxes[:1], labels[:1], masks=masks[:1]), Targets(boxes[1:], labels[1:], masks=masks[1:]))
    found = replace(candidates_at([[0.0, 0.0]] * 3, [8.0] * 3, [1, 0, 1]), target=torch.tensor([0, 0, 1]))
    truth = masks_of(found, targets, 4)
    assert truth.nonzero().tolist() == [[0, 1, 2], [1, 0, 0]]


def test_the_smallest_object_gives_the_class():
    """Areas 48, 8 and 12 pixels; where all three lie the second wins, where the first and third do the third."""
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, :6] = True
    masks[1, :2, :4] = True
    masks[2, :3, :4] = True
    target = Targets(torch.zeros(3, 4), torch.tensor([4, 5, 6]), masks=masks)
    assert semantic_labels(target, 2).tolist() == [[5, 5, 4, 4], [4, 4, 4, 4], [4, 4, 4, 4], [-1] * 4]
    assert semantic_labels(target, 1)[2].tolist() == [6] * 4 + [4] * 4
    empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), masks=masks[:0])
    assert (semantic_labels(empty, 2) == -1).all()


def test_semantic_loss_divides_by_the_places_with_a_class():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 1, 1] = masks[0, 1, 3] = True
    target = Targets(torch.zeros(1, 4), torch.tensor([1]), masks=masks)
    logits = torch.randn(1, 3, 2, 2)
    rows = logits[0].flatten(1).T
    expected = focal_loss(rows, torch.tensor([1, 1, -1, -1])) / 2
    torch.testing.assert_close(semantic_loss(logits, (target,), 2), expected)


ABLATIONS = {
    "5.1": [{"depth": 1}, {"depth": 2}, {"depth": 4}],
    "5.2": [{"width": 2}, {"width": 4}, {"width": 16}],
    "5.3": [{"mask_channels": n} for n in (1, 2, 4, 16)],
    "5.4": [{"coordinates": "none"}, {"coordinates": "absolute"}, {"mask_channels": 0}],
    "5.5": [{"upsampling": 1}, {"upsampling": 4}],
    "5.7": [{"semantic": True}],
    "5.2.1": [{"mask_levels": 1, "mask_convs": 3}],
    "6.3.1": [{"policy": BestPositives(per_image=8)}],
}


@pytest.mark.parametrize("change", [c for rows in ABLATIONS.values() for c in rows], ids=str)
def test_ablations_learn(change):
    """Every row of the tables: finite losses, a gradient for every parameter, masks of the right stride."""
    config = replace(SMALL, **change)
    assert from_dict(InstanceHeadConfig, to_dict(config) | {"kind": "CondInst"}) == config
    model = build(BOX_HEADS[0], config).train()
    for objects in ((3, 2), (0, 0)):
        model.zero_grad(set_to_none=True)
        losses = model.loss(batch_of(objects))
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert ("semantic" in losses) == config.semantic
        sum(losses.values()).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert losses["mask"] == 0
    found = model.eval().predict(replace(batch_of((1, 1)), targets=None))[0].masks
    assert found.stride == 8 // config.upsampling
    assert found.values.shape == (7, 64 // found.stride, 96 // found.stride)


@pytest.mark.parametrize("objects", [(3, 2), (0, 2), (0, 0)])
@pytest.mark.parametrize("box_head", BOX_HEADS, ids=lambda c: type(c).__name__)
def test_on_every_detector(box_head, objects):
    model = build(box_head).train()
    losses = model.loss(batch_of(objects))
    assert set(losses) >= {"class", "box", "mask"}
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert (losses["mask"] > 0.1) == (objects != (0, 0))
    model.selection = Selection(threshold=1.0)
    assert [len(found.masks.values) for found in model.eval().predict(batch_of(objects))] == [0, 0]


def test_mask_loss_is_the_mean_dice():
    """Two candidates of one object: probabilities of 1/2 over its 6 places of 16 give 1 - 2 x 3 / (4 + 6) = 0.4 each."""
    head = SMALL.build(64, 64, (8, 16, 32), 3)
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, :8, :12] = True
    batch = Batch(
        torch.zeros(1, 3, 16, 16), ((16, 16),), targets=(Targets(torch.zeros(1, 4), torch.zeros(1).long(), mask),)
    )
    losses = head.mask_losses(torch.zeros(2, 4, 4), candidates_at([[4.0, 4.0]] * 2, [8.0] * 2), batch)
    assert losses["mask"].item() == pytest.approx(0.4, abs=1e-5)


def test_data_without_masks_are_refused():
    model = build(BOX_HEADS[0])
    batch = batch_of((1, 1))
    without = tuple(replace(target, masks=None) for target in batch.targets)
    with pytest.raises(InputError, match=r"set data\.masks=true"):
        model.loss(replace(batch, targets=without))


def test_half_precision_towers():
    """Under autocast the maps are bfloat16; filters, masks and loss are float32."""
    model = build(BOX_HEADS[0], replace(SMALL, semantic=True)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(batch_of((3, 2)))
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())
    assert losses["mask"] > 0.1


@pytest.mark.parametrize(
    "change", [{"mask_channels": 0, "coordinates": "none"}, {"depth": 0}, {"mask_levels": 6}, {"mask_levels": 0}]
)
def test_settings_that_do_not_fit_together(change):
    with pytest.raises(InputError, match=r"model\.instance\."):
        replace(CondInst(), **change).build(64, 64, (8, 16, 32, 64, 128), 3)


def test_it_learns_outlines():
    """A triangle and a disc, until each mask overlaps its own by more than 0.85; their boxes filled would by 0.5 and 0.785."""
    torch.manual_seed(0)
    batch = triangle_and_disc()
    assert overlaps(taught(build(BOX_HEADS[0]), batch, steps=140), batch).min() > 0.85
