"""SmalMask and SmalMask2 by hand: where boxes are sampled, at which level, teacher forcing, poolers, loss; they learn."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from outlines import overlaps, taught, triangle_and_disc
from perpixel.errors import InputError
from perpixel.models.candidates import RandomPositives, Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.retinanet import RetinaNet
from perpixel.models.smalmask import SmalMask
from perpixel.models.smalmask2 import SmalMask2, objects
from perpixel.nn.backbones import Backbone
from perpixel.nn.deform import DeformConv2d
from perpixel.nn.fpn import FPN
from perpixel.ops.box_sampling import bin_centers, kernel_places, level_of_size, sample_maps
from perpixel.recipes import get_table
from perpixel.structures import Batch, Candidates, DenseOutputs, Locations, Matches, Targets
from tiny_batches import batch_of

STRIDES = (8, 16, 32)
SHAPES = ((12, 16), (6, 8), (3, 4))
SEPARATE, SHARED, TWO_STAGE = SmalMask(convs=1, size=6), SmalMask(convs=0, size=6), SmalMask2(size=6)
DETECTORS = {
    "FCOS": FCOS(class_convs=1, box_convs=1, initial_distance=1.0),
    "RetinaNet": RetinaNet(convs=1),
}


def tiny(box_head, instance):
    backbone = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
    selection = Selection(threshold=0.001, keep=7)
    return DetectorConfig(
        backbone=backbone, neck=FPN(channels=32), head=box_head, instance=instance, selection=selection
    )


def maps_of(channels=5, images=2):
    return tuple(torch.randn(images, channels, *shape) for shape in SHAPES)


def rows_of(image, level, points, boxes, predicted=None, target=None):
    """Candidates with these numbers, and what no predictor here reads left zero."""
    image, level = torch.as_tensor(image), torch.as_tensor(level)
    strides, zero = torch.tensor(STRIDES)[level].float(), torch.zeros_like(image)
    predicted = boxes if predicted is None else predicted
    return Candidates(image, zero, level, zero, points, strides, boxes, predicted, None, zero, target=target)


def everywhere(boxes_of_levels):
    """A candidate at every location of every level and image, and its box."""
    parts = []
    for level, ((height, width), boxes) in enumerate(zip(SHAPES, boxes_of_levels, strict=True)):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        points = (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * STRIDES[level]
        for image in range(len(boxes)):
            at = boxes[image].flatten(1).T
            parts.append(rows_of([image] * len(at), [level] * len(at), points, at))
    return parts


def random_boxes(level, images=2):
    """A box around every location of a level, (b, 4, h, w), up to 60 pixels to each side: some leave the map."""
    height, width = SHAPES[level]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    point = (torch.stack([x, y, x, y]) + 0.5) * STRIDES[level]
    side = torch.tensor([-1.0, -1, 1, 1])[:, None, None]
    return point + side * torch.rand(images, 4, height, width) * 60


def offsets_of(boxes, level, kernel):
    """Eq. 3.2 and 3.3 as `deform_conv2d` takes them: in cells, less where a plain convolution would read, y before x."""
    height, width = SHAPES[level]
    stride = STRIDES[level]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    point_x, point_y = (x + 0.5) * stride, (y + 0.5) * stride
    left, top, right, bottom = (
        point_x - boxes[:, 0],
        point_y - boxes[:, 1],
        boxes[:, 2] - point_x,
        boxes[:, 3] - point_y,
    )
    channels = []
    for j in range(kernel):
        for i in range(kernel):
            o_x = (left + right) * (2 * i + 1) / (2 * kernel) - left
            o_y = (top + bottom) * (2 * j + 1) / (2 * kernel) - top
            channels += [o_y / stride - (j - kernel // 2), o_x / stride - (i - kernel // 2)]
    return torch.stack(channels, dim=1)


def test_bin_centers_are_equations_3_2_and_3_3():
    """The point (20, 30) in the box (10, 10, 40, 60): l = 10, t = 20, r = 20, b = 30.

    o_x(i) = 30 (2 i + 1) / 6 - 10 = -5, 5, 15. o_y(j) = 50 (2 j + 1) / 6 - 20 = -35/3, 5, 65/3. Row j, column i.
    """
    offsets = bin_centers(torch.tensor([[10.0, 10, 40, 60]]), 3)[0] - torch.tensor([20.0, 30])
    torch.testing.assert_close(offsets[..., 0], torch.tensor([[-5.0, 5, 15]]).expand(3, 3))
    torch.testing.assert_close(offsets[..., 1], torch.tensor([[-35 / 3], [5], [65 / 3]]).expand(3, 3))
    assert bin_centers(torch.zeros(0, 4), 5).shape == (0, 5, 5, 2)


def test_samples_by_hand():
    """A map 0 1 / 2 3 of stride 8 with its values at (4, 4), (12, 4), (4, 12), (12, 12).

    (8, 8) lies between all: 1.5. (6, 12), a quarter on from 2 to 3: 2.25. (12, 0), half a cell above 1: 0.5. (17, 12) is 5/8 of a
    cell past 3: 9/8. (12, 21) is past everything.
    """
    values = torch.tensor([[[[0.0, 1], [2, 3]]]])
    places = torch.tensor([[8.0, 8], [6, 12], [12, 0], [17, 12], [12, 21], [4, 12]]).reshape(1, 2, 3, 2)
    zero = torch.zeros(1, dtype=torch.long)
    found = sample_maps([values], [8], zero, zero, places[:, :, :2])
    assert found.flatten().tolist() == [1.5, 2.25, 1.125, 0]
    found = sample_maps([values], [8], zero, zero, places[:, :, 1:])
    assert found.flatten().tolist() == [2.25, 0.5, 0, 2]


def test_kernel_places_are_a_convolutions():
    found = kernel_places(torch.tensor([[20.0, 36]]), torch.tensor([8.0]), 3)[0]
    assert found[0].tolist() == [[12, 28], [20, 28], [28, 28]] and found[2, 0].tolist() == [12, 44]


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("predictor", ["roi_pred", "roi_conv"])
def test_at_candidates_equals_the_dense_deformable_convolution(predictor, kernel):
    """At every location of every level and image, boxes that leave the map included; to 1e-5 of the largest."""
    config = replace(SHARED, predictor=predictor, kernel=kernel, size=4)
    head = config.build(5, 5, STRIDES, 3)
    boxes = [random_boxes(level) for level in range(3)]
    maps = maps_of()
    rows = iter(everywhere(boxes))
    with torch.no_grad():
        for level, values in enumerate(maps):
            layer = head.to_mask if head.align is None else head.align
            offsets = offsets_of(boxes[level], level, kernel)
            dense = deform_conv2d(values, offsets, layer.weight, layer.bias, padding=kernel // 2)
            if head.align is not None:
                dense = F.conv2d(dense.relu(), head.to_mask.weight, head.to_mask.bias)
            for image in range(2):
                candidates = next(rows)
                found = head.logits(maps, candidates, candidates.boxes).flatten(1)
                wanted = dense[image].flatten(1).T
                assert (found - wanted).abs().max() < 1e-5 * max(1, wanted.abs().max())


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("predictor", ["conv", "def_conv"])
def test_predictors_without_boxes_equal_their_dense_convolutions(predictor, kernel):
    """DefConv's is the library's modulated deformable convolution with the same weights."""
    head = replace(SHARED, predictor=predictor, kernel=kernel, size=4).build(5, 5, STRIDES, 3)
    dense = torch.nn.Conv2d(5, 16, kernel, padding=kernel // 2)
    if predictor == "def_conv":
        torch.nn.init.normal_(head.offset.weight, std=0.2)
        dense = DeformConv2d(5, 16, kernel, padding=kernel // 2)
        dense.offset.load_state_dict(head.offset.state_dict())
    dense.load_state_dict(head.to_mask.state_dict(), strict=False)
    maps, rows = maps_of(), iter(everywhere([random_boxes(level) for level in range(3)]))
    with torch.no_grad():
        for values in maps:
            for image in range(2):
                candidates = next(rows)
                found = head.logits(maps, candidates, candidates.boxes).flatten(1)
                wanted = dense(values)[image].flatten(1).T
                assert (found - wanted).abs().max() < 1e-5 * max(1, wanted.abs().max())


def test_learned_offsets_have_the_dense_gradient():
    """At zero offset, where the next cell's weight is 0, the gradient is one-sided as torchvision's; away from the border."""
    head = replace(SHARED, predictor="def_conv", kernel=3, size=4).build(5, 5, STRIDES, 3)
    torch.nn.init.normal_(head.to_mask.weight)
    dense = DeformConv2d(5, 16, 3)
    dense.load_state_dict(head.to_mask.state_dict(), strict=False)
    maps = maps_of()
    candidates = everywhere([random_boxes(level) for level in range(3)])[0]
    inner = torch.zeros(SHAPES[0], dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    candidates = candidates.rows(inner.flatten())
    head.logits(maps, candidates, candidates.boxes).square().sum().backward()
    dense(maps[0])[0, :, inner].square().sum().backward()
    for one, two in zip(head.offset.parameters(), dense.offset.parameters(), strict=True):
        assert (one.grad - two.grad).abs().max() < 1e-5 * two.grad.abs().max() and two.grad.abs().max() > 1


def test_lower_levels_are_read_at_the_same_places():
    """Eq. 3.5: maps that hold the pixel at which they stand give a box's bin centres, whichever level is read."""
    maps = []
    for (height, width), stride in zip(SHAPES, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        maps.append((torch.stack([x, y])[None] + 0.5) * stride)
    boxes = torch.tensor([[30.0, 24, 90, 70], [26, 20, 100, 60], [40, 30, 61, 77]])
    candidates = rows_of([0, 0, 0], [0, 1, 2], torch.rand(3, 2), boxes)
    wanted = bin_centers(boxes, 5).permute(0, 3, 1, 2)
    for levels, read in (("own", (0, 1, 2)), ("top_below", (0, 1, 1)), ("below", (0, 0, 1))):
        head = replace(SHARED, levels=levels).build(2, 2, STRIDES, 3)
        assert head.read == read
        dense = head(tuple(maps), replace(outputs_of(), towers=tuple(maps), class_towers=tuple(maps)))
        assert len(dense) == max(read) + 1
        torch.testing.assert_close(head.samples(dense, candidates, boxes), wanted, atol=1e-3, rtol=0)


def test_level_of_the_longer_side_by_hand():
    """L = 64 and four levels: below 64 the first, from 64 the second, from 128 the third, from 256 the last, without end."""
    sides = [0.0, 31, 63.9, 64, 127.9, 128, 255.9, 256, 5000]
    wide = torch.tensor([[7.0, 5, 7 + side, 5 + side / 2] for side in sides])
    high = wide[:, [1, 0, 3, 2]]
    wanted = [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert level_of_size(wide, 64.0, 4).tolist() == level_of_size(high, 64.0, 4).tolist() == wanted
    assert level_of_size(wide, 128.0, 4).tolist() == [max(0, level - 1) for level in wanted[:-1]] + [3]
    assert level_of_size(wide, 48.0, 1).tolist() == [0] * 9


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_roi_pred_equals_roi_align_and_a_layer(kernel):
    """Section 3.4: the same parameters and the same masks, where the level is the same; boxes in the image, 1e-5."""
    dense_head = replace(SHARED, kernel=kernel).build(5, 5, STRIDES, 3)
    two_stage = replace(TWO_STAGE, kernel=kernel).build(5, 5, STRIDES, 3)
    two_stage.load_state_dict(dense_head.state_dict())
    maps = maps_of()
    low = torch.rand(60, 2) * torch.tensor([60.0, 40]) + 2 * kernel
    boxes = torch.cat([low, low + 8 + torch.rand(60, 2) * torch.tensor([40.0, 30])], dim=1)
    level = level_of_size(boxes, 32.0, 3)
    # Samples less than half a cell from the border differ: RoIAlign goes on with the border's values there.
    inner = torch.tensor(STRIDES)[level] / 2
    extent = torch.tensor([128, 96]) - inner[:, None]
    places = bin_centers(boxes, kernel).flatten(1, 2)
    kept = ((places >= inner[:, None, None]) & (places <= extent[:, None])).all(dim=(1, 2))
    assert kept.sum() > 20 and level[kept].unique().tolist() == [0, 1]
    candidates = rows_of([0, 1] * 30, level, torch.rand(60, 2), boxes).rows(kept)
    one, two = dense_head.logits(maps, candidates, candidates.boxes), two_stage.logits(maps, candidates, 32.0)
    assert (one - two).abs().max() < 1e-5 and one.std() > 0.02


def test_teacher_forcing():
    """Table 3.3 in 300 steps: the share guided by the object's box at step 0, 59, 60, a third of the way, the last, after it.

    `fix` is the first fifth, 18,000 of the thesis's 90,000 steps.
    """
    boxes, predicted = torch.zeros(9000, 4), torch.ones(9000, 4)
    image = torch.zeros(9000, dtype=torch.long)
    candidates = rows_of(image, image, torch.zeros(9000, 2), boxes, predicted)

    def shares(truth):
        head = replace(SHARED, truth=truth, truth_steps=300).build(5, 5, STRIDES, 3)
        found = [head.guiding_boxes(candidates, step) for step in (0, 59, 60, 100, 299, 300, 1000)]
        assert all((rows == rows[:, :1]).all() for rows in found)
        return [1 - rows.mean().item() for rows in found]

    assert shares("with") == [1] * 7 and shares("without") == [0] * 7
    assert shares("fix") == [1, 1, 0, 0, 0, 0, 0]
    first, _, fifth, third, last, *after = shares("random")
    assert first == 1 and last < 0.02 and after == [0, 0]
    assert fifth == pytest.approx(0.8, abs=0.02) and third == pytest.approx(2 / 3, abs=0.02)


def square_batch(drawn=None):
    """An image of 64 x 64 with an object over (0, 0) to (32, 32), whose left half is its mask, and a smaller one, all mask."""
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :32, :16] = True
    masks[1, 40:56, 40:56] = True
    target = Targets(torch.tensor([[0.0, 0, 32, 32], [40, 40, 56, 56]]), torch.tensor([2, 0]), masks=masks, drawn=drawn)
    return Batch(torch.zeros(1, 3, 64, 64), ((64, 64),), targets=(target,))


def test_the_mask_is_the_objects_whatever_guides():
    """A layer that says +2 in the left half and -2 in the right of whatever it is shown, whole boxes being left half mask.

    Guided by wrong predicted boxes the loss is the same log(1 + e^-2) = 0.12693, since truth is cut out by the object's own box.
    """
    predicted = torch.tensor([[50.0, 50, 60, 60]]).expand(4, -1)
    boxes = torch.tensor([[0.0, 0, 32, 32]]).expand(4, -1)
    zero = torch.zeros(4, dtype=torch.long)
    candidates = rows_of(zero, zero, torch.zeros(4, 2), boxes, predicted, target=zero)
    for truth in ("with", "without"):
        head = replace(SHARED, truth=truth, weight=3.0).build(5, 5, STRIDES, 3)
        torch.nn.init.zeros_(head.to_mask.weight)
        head.to_mask.bias.data = torch.tensor([2.0, 2, 2, -2, -2, -2] * 6)
        loss = head.loss(maps_of(), candidates, square_batch())["mask"]
        assert loss.item() == pytest.approx(3 * 0.126928, abs=1e-5)


def test_poolers_train_together_and_the_longest_predicts():
    """Boxes of 100 and 50 pixels: L = 64 reads levels 1 and 0, L = 32 levels 2 and 1. The loss of both is the mean."""
    maps, batch = maps_of(images=1), square_batch()
    boxes = torch.tensor([[0.0, 0, 100, 60], [10, 0, 40, 50]])
    zero = torch.zeros(2, dtype=torch.long)
    candidates = rows_of(zero, zero, torch.zeros(2, 2), boxes, target=torch.tensor([0, 1]))
    assert level_of_size(boxes, 64.0, 3).tolist() == [1, 0] and level_of_size(boxes, 32.0, 3).tolist() == [2, 1]
    head = SmalMask2(size=6, lengths=(32.0, 64.0)).build(5, 5, STRIDES, 3)
    torch.nn.init.normal_(head.to_mask.weight)
    losses, masks = [], []
    for lengths in ((32.0, 64.0), (32.0,), (64.0,), (64.0, 32.0)):
        one = SmalMask2(size=6, lengths=lengths).build(5, 5, STRIDES, 3)
        one.load_state_dict(head.state_dict())
        losses.append(one.loss(maps, candidates, batch)["mask"].item())
        masks.append(one.predict(maps, candidates).values)
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2) and abs(losses[1] - losses[2]) > 1e-3
    assert torch.equal(masks[0], masks[2]) and torch.equal(masks[3], masks[2])
    assert not torch.allclose(masks[1], masks[2])


def outputs_of(anchors_per_cell=1, images=1):
    """What a detector of stride 8 and one level of 8 x 8 says."""
    count = 64 * anchors_per_cell
    where = Locations(
        torch.zeros(count, 2), torch.full((count,), 8.0), torch.zeros(count).long(), None, ((8, 8),), anchors_per_cell
    )
    zeros, tower = torch.zeros(images, count, 4), torch.zeros(images, 1, 8, 8)
    return DenseOutputs(zeros[..., :1], zeros, None, zeros, (tower,), (tower,), where)


def test_every_object_is_a_candidate_once():
    """Centres (16, 16), (48, 48): cells 2 * 8 + 2, 6 * 8 + 6; the last for one that leaves the map. Three anchors a cell."""
    target = square_batch().truth()[0]
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), masks=torch.zeros(0, 64, 64).bool())
    outside = replace(target, boxes=torch.tensor([[60.0, 60, 80, 80], [0, 0, 4, 2]]))
    found = objects(outputs_of(3, images=3), [target, nothing, outside])
    assert found.image.tolist() == [0, 0, 2, 2] and found.target.tolist() == [0, 1, 0, 1]
    assert found.location.tolist() == [3 * 18, 3 * 54, 3 * 63, 0] and found.cell.tolist() == [18, 54, 63, 0]
    assert torch.equal(found.boxes, torch.cat([target.boxes, outside.boxes])) and found.labels.tolist() == [2, 0, 2, 0]
    assert len(objects(outputs_of(images=2), [nothing, nothing])) == 0


def test_objects_without_a_drawn_mask_train_no_mask():
    batch = square_batch(drawn=torch.tensor([False, True]))
    head = TWO_STAGE.build(5, 5, (8,), 3)
    nothing = Matches(torch.full((1, 64), -1))
    assert head.choose(outputs_of(), nothing, batch).target.tolist() == [1]
    model = tiny(DETECTORS["FCOS"], SEPARATE).build(3)
    outputs, _ = model(batch.images.repeat(2, 1, 1, 1))
    batch = replace(batch, targets=batch.targets * 2)
    matches = model.box_head.assign(outputs.locations, batch.truth())
    assert model.instance_head.choose(outputs, matches, batch).target.unique().tolist() == [1]


@pytest.mark.parametrize("counts", [(3, 2), (0, 2), (0, 0)])
@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize(
    "instance",
    [replace(SEPARATE, levels="below"), TWO_STAGE, *(replace(SHARED, predictor=p) for p in ("def_conv", "roi_conv"))],
    ids=["SmalMask", "SmalMask2", "DefConv", "RoIConv"],
)
def test_on_every_detector(detector, instance, counts):
    model = tiny(DETECTORS[detector], instance).build(3).train()
    losses = model.loss(batch_of(counts))
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert (losses["mask"] > 0.1) == (counts != (0, 0))
    found = model.eval().predict(replace(batch_of(counts), targets=None))
    assert all(f.masks.values.shape == (len(f), 6, 6) for f in found)
    model.selection = Selection(threshold=1.0)
    assert [len(found.masks.values) for found in model.eval().predict(batch_of(counts))] == [0, 0]


@pytest.mark.parametrize("truth", ["with", "without"])
def test_the_detectors_boxes_feel_no_mask(truth):
    """The boxes that guide are detached; the mask loss reaches the box tower that a shared head reads."""
    model = tiny(DETECTORS["FCOS"], replace(SHARED, truth=truth)).build(3).train()
    model.loss(batch_of((3, 2)))["mask"].backward()
    assert model.box_head.distances.weight.grad is None
    assert all(p.grad.abs().sum() > 0 for p in model.box_head.box_tower.parameters() if p.ndim > 1)


@pytest.mark.parametrize("instance", [SEPARATE, SHARED, TWO_STAGE], ids=["separate", "shared", "two-stage"])
def test_half_precision_towers(instance):
    """Under autocast the maps are bfloat16; everything of the head and its loss is float32."""
    model = tiny(DETECTORS["FCOS"], instance).build(3).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(batch_of((3, 2)))
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()


def test_settings_that_do_not_fit_are_said_in_a_sentence():
    changes = (
        lambda: SmalMask(size=0),
        lambda: SmalMask(convs=-1),
        lambda: SmalMask(truth_steps=0),
        lambda: SmalMask2(lengths=()),
        lambda: SmalMask2(lengths=(64.0, 0.0)),
        lambda: SmalMask2(size=0),
    )
    for change in changes:
        with pytest.raises(InputError, match=r"model\.instance\."):
            change()


def test_every_row_is_there():
    """As many as the thesis's tables 3.1 to 3.6 have, the last in two parts."""
    counts = [len(get_table(f"smalmask_3.{number}").rows) for number in (1, 2, 3, 4, 5, 6, "6_rt")]
    assert counts == [7, 3, 4, 6, 4, 3, 2]


@pytest.mark.parametrize("instance", [SmalMask(convs=1), SmalMask2(lengths=(32.0, 64.0))], ids=["dense", "two-stage"])
def test_it_learns_outlines(instance):
    """A triangle and a disc, until each mask overlaps its own by more than 0.93; their boxes filled would by 0.5 and 0.785."""
    batch = triangle_and_disc()
    config = replace(tiny(DETECTORS["FCOS"], instance), neck=FPN(channels=64))
    assert overlaps(taught(config.build(3), batch, steps=70), batch).min() > 0.93


def test_the_limit_bounds_a_crowded_batch():
    config = replace(SHARED, policy=RandomPositives(limit=4))
    model, batch = tiny(DETECTORS["FCOS"], config).build(3), batch_of((3, 2))
    outputs, _ = model(model.normalized(batch))
    matches = model.box_head.assign(outputs.locations, batch.truth())
    assert len(model.instance_head.choose(outputs, matches, batch)) == 4
