"""PointINS by hand: I^z, the reshape, points and target boxes, edges, loss; it learns."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from outlines import overlaps, taught, triangle_and_disc
from parity.whole_masks import paste_box_masks
from perpixel.errors import InputError
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.duplicates import BoxNMS
from perpixel.models.fcos import FCOS
from perpixel.models.indicator import Indicator
from perpixel.models.mask_truth import masks_in_boxes
from perpixel.models.pointins import PointINS
from perpixel.models.retinanet import RetinaNet
from perpixel.models.target_boxes import OverlappingPoints, Shares
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.ops.dynamic import dynamic_conv
from perpixel.ops.masks import crop_masks, edge_pixels
from perpixel.recipes import get_table
from perpixel.structures import Batch, Candidates, DenseOutputs, Locations, Matches, Targets
from tiny_batches import triangles

SMALL = PointINS(size=4, width=8, convs=1)
WITH_ANCHORS = replace(SMALL, indicator=Indicator(("stride", "anchor", "center", "sides")))
DETECTORS = [(FCOS(class_convs=1, box_convs=1, initial_distance=1.0), SMALL), (RetinaNet(convs=1), WITH_ANCHORS)]


def tiny(box_head, instance, channels=64):
    backbone = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
    selection = Selection(threshold=0.001, keep=7)
    return DetectorConfig(
        backbone=backbone, neck=FPN(channels=channels), head=box_head, instance=instance, selection=selection
    )


def one(box, point, stride, anchor=None):
    """A candidate of these numbers."""
    zero = torch.zeros(1, dtype=torch.long)
    box = torch.tensor([box])
    anchors = None if anchor is None else torch.tensor([anchor])
    return Candidates(
        zero, zero, zero, zero, torch.tensor([point]), torch.tensor([stride]), box, box, anchors, zero, target=zero
    )


def test_indicator_of_an_anchor_by_hand():
    """Stride 8, an anchor 32 wide (v) and 64 high (u) around (40, 48), a box from (28, 20) to (60, 92).

    I^o: 1/8, u/v = 2, u/s = 8, v/s = 4. The box's centre is (44, 56): r = (4, 8) / 8 = (0.5, 1). Its width is 32, its height 72:
    l = 16/8 - 0.5 = 1.5, r = 16/8 + 0.5 = 2.5, b = 36/8 + 1 = 5.5, t = 36/8 - 1 = 3.5.
    """
    candidate = one([28.0, 20.0, 60.0, 92.0], [40.0, 48.0], 8.0, [24.0, 16.0, 56.0, 80.0])
    found = WITH_ANCHORS.indicator.of(candidate, torch.zeros(1, 5))
    assert found.tolist() == [[0.125, 2, 8, 4, 0.5, 1, 1.5, 2.5, 5.5, 3.5]]
    assert WITH_ANCHORS.indicator.length(5) == 10


def test_indicator_of_a_point_by_hand():
    """FCOS, stride 16, point (24, 40), box from (8, 32) to (72, 64): centre (40, 48), so r = (1, 0.5).

    l = 32/16 - 1 = 1, r = 32/16 + 1 = 3, b = 16/16 + 0.5 = 1.5, t = 16/16 - 0.5 = 0.5; before them 1/16.
    """
    found = Indicator().of(one([8.0, 32.0, 72.0, 64.0], [24.0, 40.0], 16.0), torch.zeros(1, 5))
    assert found.tolist() == [[0.0625, 1, 0.5, 1, 3, 1.5, 0.5]]
    assert Indicator().length(5) == 7


def test_other_indicators_by_hand():
    """Table 5. The anchor of 32 x 64 above: deltas 4/32, 8/64, log(32/32), log(72/64); log I^o leaves I^q alone."""
    candidate = one([28.0, 20.0, 60.0, 92.0], [40.0, 48.0], 8.0, [24.0, 16.0, 56.0, 80.0])
    features = torch.tensor([[3.0, -4.0]])
    deltas = Indicator(("deltas",)).of(candidate, features)
    torch.testing.assert_close(deltas, torch.tensor([[0.125, 0.125, 0.0, 0.1177830]]))
    of_point = Indicator(("deltas",)).of(replace(candidate, anchors=None), features)
    torch.testing.assert_close(of_point, torch.tensor([[0.5, 1.0, 1.3862944, 2.1972246]]))
    assert Indicator(("features",)).of(candidate, features).tolist() == features.tolist()
    assert Indicator(("stride", "features")).length(2) == 3
    logs = Indicator(("stride", "center"), "log_anchor").of(candidate, features)
    torch.testing.assert_close(logs, torch.tensor([[-2.0794415, 0.5, 1.0]]))
    plain = WITH_ANCHORS.indicator
    for name in ("sigmoid", "tanh"):
        found = replace(plain, transform=name).of(candidate, features)
        assert torch.equal(found, getattr(plain.of(candidate, features), name)())


def test_the_first_channels_are_the_upper_left_cell():
    """E = 2, K = 4, a 1x1 kernel that passes its 32 inputs on: number 2 (4 y + x) + e is channel e of cell (y, x)."""
    head = replace(SMALL, channels=2, kernel=1).build(64, 32, (8,), 3)
    head.up_scaling.weight.data = torch.eye(32)[:, :, None, None]
    found = head.templates(torch.arange(32.0)[None, :, None, None])
    assert found.shape == (1, 2, 4, 4)
    assert found[0, :, 0, 0].tolist() == [0, 1] and found[0, :, 0, 1].tolist() == [2, 3]
    assert found[0, :, 1, 0].tolist() == [8, 9] and found[0, 1, 3, 2].item() == 29


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_templates_at_candidates_equal_the_dense_convolution(kernel):
    """And the whole head the slow way, a candidate at a time; two anchors of one cell have one template and two masks."""
    model = tiny(RetinaNet(convs=1), replace(WITH_ANCHORS, kernel=kernel)).build(3).eval()
    head, batch = model.instance_head, triangles((3, 2))
    torch.nn.init.normal_(head.up_scaling.weight, std=0.2)
    torch.nn.init.normal_(head.mask.to_logits.weight)
    with torch.no_grad():
        outputs, dense = model(model.normalized(batch))
        found = head.choose(outputs, model.box_head.assign(outputs.locations, batch.truth()), batch)
        assert len(found) > 10 and found.image.unique().tolist() == [0, 1]
        templates = head.templates(patches_of(dense, found, kernel))
        logits = head.logits(dense, found)
        maps = [
            F.conv2d(x, head.up_scaling.weight, head.up_scaling.bias, padding=kernel // 2).flatten(2) for x in dense
        ]
        for row in range(len(found)):
            numbers = maps[int(found.level[row])][int(found.image[row]), :, int(found.cell[row])]
            template = numbers.reshape(4, 4, 9).permute(2, 0, 1)
            assert (template - templates[row]).abs().max() < 1e-5 * numbers.abs().max()
            indicator = head.config.indicator.of(found.rows(torch.tensor([row])), torch.zeros(1, 64))
            weight = head.to_weights(indicator).reshape(8, 9, 1, 1)
            alone = head.mask(F.conv2d(template[None], weight))[0]
            assert (alone - logits[row]).abs().max() < 1e-4 * logits.abs().max()
    cell = torch.stack([found.image, found.level, found.cell], dim=1)
    same = [(i, j) for i in range(len(cell)) for j in range(i) if torch.equal(cell[i], cell[j])]
    assert same and all(torch.equal(templates[i], templates[j]) for i, j in same)
    assert any(not torch.allclose(logits[i], logits[j]) for i, j in same)


def patches_of(towers, candidates, size):
    """The neighbourhoods the slow way, from padded maps."""
    parts = []
    for image, level, cell in zip(candidates.image, candidates.level, candidates.cell, strict=True):
        values = F.pad(towers[level][image], (size // 2,) * 4)
        y, x = divmod(int(cell), towers[level].shape[3])
        parts.append(values[:, y : y + size, x : x + size])
    return torch.stack(parts)


@pytest.mark.parametrize("kernel", [1, 3])
def test_dynamic_convolution_equals_a_loop(kernel):
    torch.manual_seed(0)
    maps, weight = torch.randn(5, 9, 6, 7), torch.randn(5, 4, 9, kernel, kernel)
    slow = torch.cat([F.conv2d(m[None], w, padding=kernel // 2) for m, w in zip(maps, weight, strict=True)])
    torch.testing.assert_close(dynamic_conv(maps, weight), slow)
    assert dynamic_conv(maps[:0], weight[:0]).shape == (0, 4, 6, 7)


def test_edges_by_hand():
    """A mask of 3 x 3 in the corner of 5 x 6: its own row 2 and column 2, and the ring around; the map's border is no edge."""
    mask = torch.zeros(1, 5, 6, dtype=torch.bool)
    mask[0, :3, :3] = True
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[2:4, :4] = True
    expected[:4, 2:4] = True
    assert torch.equal(edge_pixels(mask)[0], expected)
    assert not edge_pixels(torch.ones(1, 4, 4, dtype=torch.bool)).any()
    assert edge_pixels(mask[:0]).shape == (0, 5, 6)


def test_crops_by_hand():
    """Columns 0 to 3 are mask. A box over columns 2 to 6 in 4 cells: 1 1 0 0. Moved by half a pixel its second cell is half
    covered, which is enough: over 2.5 to 6.5, 1 1 0 0. One that starts 2 pixels outside the image: 0 0 1 1. Cells of 2 pixels
    over 1 to 9: 1, then half of the second.
    """
    masks = torch.zeros(2, 8, 10, dtype=torch.bool)
    masks[1, :, :4] = True
    boxes = torch.tensor([[2.0, 0, 6, 4], [2.5, 0, 6.5, 4], [-2.0, 2, 2, 6], [1.0, 0, 9, 8], [2.0, 0, 6, 4]])
    found = crop_masks(masks, torch.tensor([1, 1, 1, 1, 0]), boxes, 4)
    rows = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert found.int().tolist() == [[row] * 4 for row in rows]
    assert crop_masks(masks, torch.zeros(0).long(), boxes[:0], 4).shape == (0, 4, 4)
    assert crop_masks(masks[:0], torch.zeros(0).long(), boxes[:0], 4).shape == (0, 4, 4)


def test_crops_paste_back():
    """A disc of 40 pixels, cut out by a box that is not its own and pasted back: at least 0.95 of it is the same."""
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    disc = ((x - 50).square() + (y - 30).square() < 20**2)[None]
    box = torch.tensor([[26.3, 8.1, 74.9, 55.2]])
    again = paste_box_masks(crop_masks(disc, torch.tensor([0]), box, 32).float(), box, (64, 96))
    assert (again & disc).sum() / (again | disc).sum() > 0.95


def outputs_of(anchors, boxes, images=1):
    """What a detector with the given anchors (None: FCOS) and predicted boxes says, nothing else in it."""
    count = len(boxes)
    points, zeros, tower = (
        (boxes[:, :2] + boxes[:, 2:]) / 2,
        torch.zeros(images, count, 4),
        torch.zeros(images, 1, 1, 1),
    )
    where = Locations(points, torch.full((count,), 8.0), torch.zeros(count).long(), anchors, ((1, count),))
    return DenseOutputs(zeros[..., :1], boxes.expand(images, -1, -1), None, zeros, (tower,), (tower,), where)


def test_points_by_hand():
    """One object of 10 x 10. IoU of anchors: 1, 0.6, 0.45, 1; of the regressed boxes: 1, 1, 1, 0.4.

    With regressed boxes rows 0 and 1 pass; with anchors rows 0, 1 and 3, the last one's anchor being good; with
    anchor_iou 0.4 row 2 passes as well; with box_iou 0.7 row 1's anchor no longer does.
    """
    target = Targets(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([2]), masks=torch.ones(1, 10, 10).bool())
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 4.5], [0, 0, 10, 10]])
    predicted = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 4]])
    outputs, nothing = outputs_of(anchors, predicted), Matches(torch.full((1, 4), -1))

    def rows(shares, **settings):
        found = OverlappingPoints(shares=Shares(*map(float, shares)), **settings).choose(outputs, nothing, [target])
        assert found.labels.tolist() == [2] * len(found) and found.target.tolist() == [0] * len(found)
        expected = {(1, 0, 0): anchors, (0, 1, 0): target.boxes.expand(4, 4), (0, 0, 1): predicted}[shares]
        assert torch.equal(found.boxes, expected[found.location])
        return found.location.tolist()

    assert rows((0, 0, 1)) == [0, 1]
    assert rows((1, 0, 0)) == rows((0, 1, 0)) == [0, 1, 3]
    assert rows((0, 0, 1), anchor_iou=0.4) == [0, 1, 2]
    assert rows((1, 0, 0), box_iou=0.7) == [0, 3]
    assert rows((0, 1, 0), anchor_iou=0.7) == [0, 3]


def test_points_of_fcos_are_the_detectors_positives():
    """Without anchors the matches count, whatever a point's place; the anchors' share goes to the others in proportion."""
    target = Targets(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0]), masks=torch.ones(1, 10, 10).bool())
    outputs = outputs_of(None, torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 9], [0, 0, 10, 4]]))
    found = OverlappingPoints().choose(outputs, Matches(torch.tensor([[-1, 0, 0]])), [target])
    assert 1 in found.location.tolist() and 0 not in found.location.tolist()
    kinds = torch.bincount(OverlappingPoints(shares=Shares(0.5, 0.1, 0.4)).draw(20_000, False, torch.device("cpu")))
    assert kinds[0] == 0 and kinds[1] / 20_000 == pytest.approx(0.2, abs=0.02)
    with pytest.raises(InputError, match="needs a detector with anchors"):
        OverlappingPoints(shares=Shares(1.0, 0.0, 0.0)).choose(outputs, Matches(torch.tensor([[-1, 0, 0]])), [target])


def test_target_boxes_are_drawn_by_their_shares():
    kinds = torch.bincount(OverlappingPoints().draw(100_000, True, torch.device("cpu"))) / 100_000
    torch.testing.assert_close(kinds, torch.tensor([0.05, 0.05, 0.9]), atol=0.005, rtol=0)
    with pytest.raises(InputError, match="1 together"):
        Shares(0.5, 0.5, 0.5)


def test_the_limit_is_an_images_and_the_draw_is_the_global_generators():
    """50 good points an image, at most 20: 20 of each; the same seed draws the same, another one others."""
    box = torch.tensor([[0.0, 0, 10, 10]])
    target = Targets(box, torch.tensor([0]), masks=torch.ones(1, 10, 10).bool())
    outputs = outputs_of(box.expand(50, 4), box.expand(50, 4), images=2)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found = OverlappingPoints(limit=20).choose(outputs, Matches(torch.full((2, 50), -1)), [target, target])
        assert torch.bincount(found.image).tolist() == [20, 20]
        drawn.append(found.location.tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][:20] == sorted(drawn[0][:20]) != drawn[0][20:]
    every = OverlappingPoints(limit=None).choose(outputs, Matches(torch.full((2, 50), -1)), [target, target])
    assert len(every) == 100


def test_objects_without_a_drawn_mask_train_no_mask():
    box = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    masks, drawn = torch.ones(2, 10, 40).bool(), torch.tensor([False, True])
    target = Targets(box, torch.zeros(2).long(), masks=masks, drawn=drawn)
    found = OverlappingPoints().choose(outputs_of(box, box), Matches(torch.tensor([[0, 1]])), [target])
    assert found.target.tolist() == [1]


def test_loss_by_hand():
    """K = 4, so 8 x 8 pixels of which the left half is mask: columns 3 and 4 are its edge.

    At logits of 0 every pixel costs log 2; the weights are 4 in 2 of 8 columns and 1 in 6, 1.75 on average; times
    lambda_mask = 2, whatever the number of candidates: 3.5 log 2 = 2.4260.
    """
    head = SMALL.build(64, 64, (8,), 3)
    torch.nn.init.zeros_(head.mask.to_logits.weight)
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, :, :8] = True
    target = Targets(torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([0]), masks)
    batch = Batch(torch.zeros(1, 3, 16, 16), ((16, 16),), targets=(target,))
    candidate = one([0.0, 0, 16, 16], [4.0, 4.0], 8.0)
    for count in (1, 3):
        several = candidate.rows(torch.zeros(count, dtype=torch.long))
        assert masks_in_boxes(several, batch.truth(), 8)[:, 0].tolist() == [[True] * 4 + [False] * 4] * count
        loss = head.loss((torch.rand(1, 64, 2, 2),), several, batch)["mask"]
        assert loss.item() == pytest.approx(2.4260, abs=1e-4)


@pytest.mark.parametrize("objects", [(3, 2), (0, 2), (0, 0)])
@pytest.mark.parametrize("head, instance", DETECTORS, ids=["FCOS", "RetinaNet"])
def test_on_every_detector(head, instance, objects):
    torch.manual_seed(0)
    model = tiny(head, instance).build(3).train()
    losses = model.loss(triangles(objects))
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert (losses["mask"] > 0.1) == (objects != (0, 0))
    found = model.eval().predict(replace(triangles(objects), targets=None))
    assert all(f.masks.values.shape == (len(f), 8, 8) for f in found)
    model.selection = Selection(threshold=1.0)
    assert [len(found.masks.values) for found in model.eval().predict(triangles(objects))] == [0, 0]


def test_the_detectors_loss_feels_no_mask():
    """Regressed target boxes are detached: the mask loss reaches the box tower through templates, not the box predictor."""
    torch.manual_seed(0)
    model = tiny(RetinaNet(convs=1), WITH_ANCHORS).build(3).train()
    model.loss(triangles((3, 2)))["mask"].backward()
    assert model.box_head.deltas.weight.grad is None
    assert all(p.grad is not None for p in model.box_head.box_tower.parameters())


@pytest.mark.parametrize("head, instance", DETECTORS, ids=["FCOS", "RetinaNet"])
def test_masks_before_nms_are_those_after_it(head, instance, monkeypatch):
    """Both orders of "Inference Details": the same detections, from more masks."""
    model, batch = tiny(head, instance).build(3).eval(), replace(triangles((1, 1)), targets=None)
    torch.nn.init.normal_(model.instance_head.mask.to_logits.weight)
    counts = []
    predict = model.instance_head.predict
    monkeypatch.setattr(model.instance_head, "predict", lambda d, c: counts.append(len(c)) or predict(d, c))
    after = model.predict(batch)
    model.duplicates = BoxNMS(instances="before")
    before = model.predict(batch)
    assert counts[0] == 14 < counts[1]
    for one, other in zip(after, before, strict=True):
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores)
        torch.testing.assert_close(one.masks.values, other.masks.values)
        assert one.masks.values.std() > 0.01


def test_half_precision_towers():
    """Under autocast the maps are bfloat16; everything of the head and its loss is float32, for features as I^z too."""
    for parts in (("stride", "center", "sides"), ("features",)):
        model = tiny(FCOS(class_convs=1, box_convs=1), replace(SMALL, indicator=Indicator(parts))).build(3).train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = model.loss(triangles((3, 2)))
        assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_settings_that_do_not_fit_are_said_in_a_sentence():
    model = tiny(FCOS(class_convs=1, box_convs=1, initial_distance=1.0), WITH_ANCHORS).build(3)
    with pytest.raises(InputError, match="leave out 'anchor'"):
        model.loss(triangles((3, 2)))
    for change in (lambda: Indicator(()), lambda: Indicator(("sides", "sides")), lambda: PointINS(width=0)):
        with pytest.raises(InputError, match=r"model\.instance\."):
            change()


def test_every_row_is_there():
    """As many as the paper's tables have of PointINS: 7, 4, 8, 6, 4, 4, 5, 5, 4, 3."""
    counts = [len(get_table(f"pointins_{number}").rows) for number in range(2, 12)]
    assert counts == [7, 4, 8, 6, 4, 4, 5, 5, 4, 3]


@pytest.mark.parametrize("head, instance", DETECTORS, ids=["FCOS", "RetinaNet"])
def test_it_learns_outlines(head, instance):
    """A triangle and a disc, until each mask overlaps its own by more than 0.85; their boxes filled would by 0.5 and 0.785."""
    torch.manual_seed(0)
    batch = triangle_and_disc()
    found = taught(tiny(head, replace(instance, size=8, width=16)).build(3), batch, steps=110)
    assert overlaps(found, batch).min() > 0.85
