"""Panoptic DR1Mask: truth by channel, mean embeddings, the unified layer and what is kept by hand; padding; it learns."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from perpixel.config import override
from perpixel.engine.panoptic_metrics import count_segments, panoptic_metrics
from perpixel.errors import InputError
from perpixel.models.condinst import CondInst
from perpixel.models.detector import DetectorConfig
from perpixel.models.dr1mask_panoptic import DR1MaskPanoptic, framed
from perpixel.nn.attention import PORTION, Factored, Full, Vector
from perpixel.nn.backbones import Backbone
from perpixel.ops.blend import laid_over
from perpixel.ops.unified import UNKNOWN, channel_map, kept_objects, mean_embeddings, unified_loss
from perpixel.recipes import get_recipe, get_table
from perpixel.structures import VOID, Batch, Segments, Targets
from tiny_batches import batch_of, filled


def tiny(*settings, name="dr1mask_panoptic_shapes", channels=64):
    """A recipe's model on a small network; of its segments all are kept."""
    config = get_recipe(name).model
    backbone = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
    detector = replace(config.detector, backbone=backbone, neck=replace(config.detector.neck, channels=channels))
    settings = ("merge.score=0.0", "merge.stuff_area=1", "detector.selection.keep=8", *settings)
    return override(replace(config, detector=detector), ["detector.selection.threshold=0.001", *settings])


def test_mean_embeddings_by_hand():
    """Object 0 has rows 0 and 2, object 2 has row 1, object 1 has none: N_i = 0."""
    rows = torch.tensor([[1.0, 2], [5, 6], [3, 8]], requires_grad=True)
    mean, known = mean_embeddings(rows, torch.tensor([0, 2, 0]), 3)
    assert mean.tolist() == [[2, 5], [0, 0], [5, 6]] and known.tolist() == [True, False, True]
    mean[0].sum().backward()
    assert rows.grad.tolist() == [[0.5, 0.5], [0, 0], [0.5, 0.5]]
    mean, known = mean_embeddings(rows[:0], torch.zeros(0, dtype=torch.long), 2)
    assert mean.tolist() == [[0, 0]] * 2 and not known.any()


def test_unified_layer_is_one_product():
    """Eq. 5.9, pixel by pixel; with no objects the stuff is left."""
    model = tiny().build(3, 2).eval()
    features, things, boxes = torch.randn(64, 3, 5), torch.randn(3, 64), torch.rand(3, 4)
    with torch.no_grad():
        found = model.logits(features, boxes, things)
        for y in range(3):
            for x in range(5):
                pixel = features[:, y, x]
                expected = torch.cat([model.stuff.weight[:, :, 0, 0] @ pixel + model.stuff.bias, things @ pixel])
                torch.testing.assert_close(found[:, y, x], expected)
        torch.testing.assert_close(model.logits(features, boxes[:0], things[:0]), found[:2])


def test_attentions_over_an_image_by_hand():
    """Steps of 4 pixels in a row, a box from pixel 4 to 12 with cells 0 and 1: it begins and ends at the middle two steps.

    Centres 2, 6, 10, 14 lie at -1, 0, 1, 2 in cells; beyond the box the nearest cell's value goes on.
    """
    laid = laid_over(torch.zeros(1, 1, 2, 4), torch.tensor([[[[0.0, 1], [0, 1]]]]), torch.tensor([[4.0, 0, 12, 8]]), 4)
    assert laid.tolist() == [[[[0, 0, 1, 1]] * 2]]
    point = laid_over(torch.zeros(1, 1, 2, 4), torch.tensor([[[[0.0, 1], [0, 1]]]]), torch.tensor([[6.0, 2, 6, 2]]), 4)
    assert point.isfinite().all()


@pytest.mark.parametrize("config", (Vector(), Full(bases=3, cells=7), Factored(cells=7), Factored(weighing="plain")))
def test_over_the_image_is_over_a_box_as_large_as_it(config):
    """Features of 14 x 14 steps and a box around all of them: nothing is cut, so both ways to tell a mask agree."""
    attention = config.build(8)
    features, numbers = torch.randn(8, 14, 14), torch.randn(PORTION + 3, attention.numbers)
    boxes = torch.tensor([[0.0, 0, 56, 56]]).expand(len(numbers), 4)
    with torch.no_grad():
        expected = attention(attention.bases(features[None]).expand(len(numbers), -1, -1, -1), numbers)
        torch.testing.assert_close(attention.over_image(features, boxes, numbers, 4), expected, atol=1e-5, rtol=1e-5)
        assert attention.over_image(features, boxes[:0], numbers[:0], 4).shape == (0, 14, 14)


def test_attentions_make_a_panoptic_model_too():
    """Table 5.7: all learns, and a photo has segments."""
    model = tiny("detector.instance.attention.kind=Factored").build(3, 2).train()
    losses = model.loss(batch_of((2, 1)))
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    (first, _) = model.eval().predict(batch_of((2, 1)))
    assert first.segments is not None


def test_channels_by_hand():
    """Two kinds of stuff, three objects of which the middle one has no embedding: channels 2 and 3 are the first and the last.

    A row of seven pixels: stuff 0, stuff 1, object 0, object 1 (no channel), object 2, a crowd (an object of no mask), void.
    """
    masks = torch.zeros(3, 1, 7, dtype=torch.bool)
    masks[0, 0, 2] = masks[1, 0, 3] = masks[2, 0, 4] = True
    stuff = torch.tensor([[1, 2, 0, 0, 0, 0, VOID]], dtype=torch.uint8)
    target = Targets(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), masks, stuff=stuff)
    known = torch.tensor([True, False, True])
    assert channel_map(target, known, 2).tolist() == [[0, 1, 2, UNKNOWN, 3, UNKNOWN, UNKNOWN]]
    empty = replace(target, boxes=target.boxes[:0], labels=target.labels[:0], masks=masks[:0])
    assert channel_map(empty, known[:0], 2).tolist() == [[0, 1] + [UNKNOWN] * 5]


def test_loss_by_hand():
    """Logits (0, log 3) over two channels: -log(1/4) = 1.386294 for the first, -log(3/4) = 0.287682 for the second.

    Of the 4 x 4 pixels that two cells of stride 4 cover, 3 x 5 are truth: 4 of them the first, 2 the second, the others unknown:
    4 x 1.386294 + 2 x 0.287682 = 6.120540 over 6 pixels. The second image has other channels and no known pixel.
    """
    logits = torch.tensor([0.0, 1.0986123])[:, None, None].expand(2, 1, 2).clone().requires_grad_()
    truth = torch.full((3, 5), UNKNOWN)
    truth[0, :4], truth[1, :2] = 0, 1
    other = torch.zeros(5, 1, 2, requires_grad=True)
    total, count = unified_loss([logits, other], [truth, torch.full((3, 5), UNKNOWN)], 4)
    assert total.item() == pytest.approx(6.120540, abs=1e-5) and count.item() == 6
    total.backward()
    assert logits.grad.any() and other.grad is not None and not other.grad.any()


def test_kept_objects_by_hand():
    """One row of ten cells of stride 4, stuff at 0 everywhere, objects by where they are above it, best first.

    A has 0..3. B has 2..5: half of it is A's, more than 0.4, so it goes. C has 3..7: one fifth is A's (what B would have taken
    does not count). D wins nowhere. E would win everywhere, but in its box, 8..9, no other is: it is an object of its own.
    """
    logits = torch.full((6, 1, 10), -1.0)
    logits[0] = 0
    logits[5] = 1
    boxes = torch.tensor([[0.0, 0, 40, 4]] * 4 + [[32.0, 0, 40, 4]])
    logits[1, 0, :4] = logits[2, 0, 2:6] = logits[3, 0, 3:8] = 2
    assert kept_objects(logits, boxes, 4, 0.4).tolist() == [0, 2, 4]
    assert kept_objects(logits, boxes, 4, 0.6).tolist() == [0, 1, 2, 4]
    assert kept_objects(logits[:1], boxes[:0], 4, 0.4).tolist() == []


@pytest.mark.parametrize("divisor", [4, 32, 128])
def test_padding(divisor):
    """Images of 96 x 96 and 90 x 80 in padding of any size: as little as the divisor wants; truth goes along, stuff is void."""
    batch = framed(batch_of((2, 1)), divisor)
    side = {4: 96, 32: 96, 128: 128}[divisor]
    assert batch.images.shape == (2, 3, side, side)
    first = batch.truth()[0]
    assert first.masks.shape == (2, side, side) and (first.stuff[96:] == VOID).all()
    small = framed(replace(batch, sizes=((61, 70), (50, 50))), divisor)
    sides = {4: (64, 72), 32: (64, 96), 128: (128, 128)}[divisor]
    assert small.images.shape[2:] == sides and small.truth()[1].masks.shape[1:] == sides
    assert torch.equal(small.images, batch.images[:, :, : sides[0], : sides[1]])


def test_loss_is_that_of_the_layer_over_all_pixels():
    """An image of 92 x 84: features of stride 4 reach past it, pixels there count nothing; the mean is over known pixels.

    Detector losses are those of the detector alone.
    """
    model, batch = tiny().build(3, 2).eval(), batch_of((3, 2))
    batch = replace(batch, sizes=((92, 84),) * 2)
    losses = model.loss(batch)
    fitted = framed(batch, 4)
    assert fitted.images.shape[2:] == (92, 84)
    alone = model.detector.loss(fitted)
    assert set(losses) == {*alone, "panoptic"} and all(torch.equal(losses[name], alone[name]) for name in alone)
    outputs, dense = model(model.detector.normalized(fitted))
    assert dense.features.shape[2:] == (24, 22)
    found = model.head.choose(outputs, model.detector.box_head.assign(outputs.locations, fitted.truth()), fitted)
    embeddings = model.head.embeddings(dense, found)
    total, count = 0.0, 0
    for image, target in enumerate(fitted.truth()):
        of_object = [embeddings[(found.image == image) & (found.target == row)] for row in range(len(target))]
        there = [len(rows) > 0 for rows in of_object]
        weights = torch.stack([rows.mean(dim=0) for rows in of_object if len(rows)])
        logits = torch.einsum(
            "cd,dhw->chw", torch.cat([model.stuff.weight[:, :, 0, 0], weights]), dense.features[image]
        )
        logits = torch.cat([logits[:2] + model.stuff.bias[:, None, None], logits[2:]])
        large = F.interpolate(logits[None], scale_factor=4, mode="bilinear")[0, :, :92, :84]
        channels = channel_map(target, torch.tensor(there), 2)
        known = channels != UNKNOWN
        picked = large.log_softmax(dim=0).gather(0, channels.clamp(min=0)[None])[0]
        total, count = total - picked[known].sum(), count + int(known.sum())
    assert count > 1000
    torch.testing.assert_close(losses["panoptic"], total / count)


@pytest.mark.parametrize("settings", [(), ("embedding=mean",), ("divisor=128", "detector.instance.enlarging=bilinear")])
def test_segments(settings):
    """Every pixel in one segment of the photo's size, things first, each with pixels; with no detections stuff alone."""
    model = tiny(*settings).build(3, 2).eval()
    batch = replace(batch_of((1, 1)), targets=None, originals=((50, 60), (120, 110)))
    for found, size in zip(model.predict(batch), batch.originals, strict=True):
        segments = found.segments
        assert segments.map.shape == size and len(found) == 8
        assert segments.map.unique().tolist() == list(range(len(segments)))
        things = segments.labels < 3
        assert things.tolist() == sorted(things.tolist(), reverse=True) and segments.labels.max() < 5
        assert torch.isin(segments.scores[things], found.scores).all() and (segments.scores[~things] == 1).all()
    model.detector.selection = replace(model.detector.selection, threshold=1.0)
    for found in model.predict(batch):
        assert len(found) == 0 and len(found.segments) >= 1 and (found.segments.labels >= 3).all()


def test_suppressed_duplicates_count_in_the_mean():
    """Of all that enter NMS, those that overlap a survivor of their class by more than the threshold, by a loop."""
    model = tiny("embedding=mean", "detector.selection.iou=0.2").build(3, 2).eval()
    torch.nn.init.normal_(model.head.top.weight, std=0.1)
    batch = replace(batch_of((2, 2)), targets=None)
    with torch.no_grad():
        outputs, dense = model(model.detector.normalized(batch))
        selection = model.detector.selection
        entering, surviving = selection.entering(outputs, batch.sizes), selection.choose(outputs, batch.sizes)
        found = model.embeddings(outputs, dense, surviving, batch)
        every = model.head.embeddings(dense, entering)
    more = 0
    members = [[] for _ in range(len(surviving))]
    for row in range(len(entering)):
        overlaps = []
        for other in range(len(surviving)):
            same = entering.image[row] == surviving.image[other] and entering.labels[row] == surviving.labels[other]
            (x1, y1, x2, y2), (u1, v1, u2, v2) = entering.boxes[row].tolist(), surviving.boxes[other].tolist()
            inner = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
            outer = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inner
            overlaps.append(inner / outer if same else 0)
        best = max(overlaps)
        if best > selection.iou:
            members[overlaps.index(best)].append(every[row])
    for row, rows in enumerate(members):
        more += len(rows) > 1
        torch.testing.assert_close(found[row], torch.stack(rows).mean(dim=0), rtol=1e-4, atol=1e-5)
    assert more > 2


@pytest.mark.parametrize("objects", [(4, 3), (0, 3), (0, 0)])
def test_every_parameter_learns(objects):
    model = tiny("detector.instance.semantic_weight=0.3", "detector.instance.semantic_width=8").build(3, 2).train()
    losses = model.loss(batch_of(objects))
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert losses["panoptic"] > 0.1


def test_settings_that_do_not_fit_are_said_in_a_sentence():
    with pytest.raises(InputError, match="needs classes of stuff"):
        DR1MaskPanoptic().build(3)
    with pytest.raises(InputError, match=r"instance\.kind=DR1Mask"):
        DR1MaskPanoptic(detector=DetectorConfig(instance=CondInst())).build(3, 2)
    with pytest.raises(InputError, match=r"model\.divisor=12"):
        DR1MaskPanoptic(divisor=12)
    batch = batch_of((1, 1))
    blind = replace(batch, targets=tuple(replace(target, stuff=None) for target in batch.truth()))
    with pytest.raises(InputError, match=r"data\.stuff=true"):
        tiny().build(3, 2).loss(blind)


def test_every_row_is_there():
    """As many as tables 5.1 to 5.6 have: 4, 2, 4, 3, 3, 3."""
    assert [len(get_table(f"dr1mask_5.{number}").rows) for number in range(1, 7)] == [4, 2, 4, 3, 3, 3]


def test_it_learns():
    """One picture, two squares of one class and one look before two halves of stuff, until it is cut as the truth has it.

    PQ above 0.85, and of things above 0.8: the unified layer tells the squares apart although no box limits them.
    """
    torch.manual_seed(0)
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[2, :32], image[1, 32:] = 150, 120
    boxes = torch.tensor([[4.0, 4, 28, 28], [36.0, 32, 60, 56]])
    masks, centers = filled(boxes, (64, 64))
    image[:, masks.any(dim=0)] = torch.tensor([230, 40, 40], dtype=torch.uint8)[:, None]
    stuff = torch.ones(64, 64, dtype=torch.uint8)
    stuff[32:] = 2
    stuff[masks.any(dim=0)] = 0
    target = Targets(boxes, torch.tensor([0, 0]), masks, centers, stuff=stuff)
    rows = torch.where(masks[0], 0, torch.where(masks[1], 1, stuff.int() + 1))
    truth = Segments(rows, torch.tensor([0, 0, 1, 2]), torch.ones(4), torch.zeros(4, dtype=torch.bool))
    model = tiny("merge.score=0.3", "merge.stuff_area=64", "detector.instance.width=32").build(1, 2).train()
    batch = Batch(image[None], ((64, 64),), ((64, 64),), (target,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=70)
    for _ in range(70):
        optimizer.zero_grad()
        sum(model.loss(batch).values()).backward()
        optimizer.step()
        schedule.step()
    found = model.eval().predict(replace(batch, targets=None))[0].segments
    quality = panoptic_metrics([count_segments(truth, found, 3)], ("a",), ("c", "d")).summary
    assert quality["PQ"] > 0.85 and quality["PQ_things"] > 0.8, quality
