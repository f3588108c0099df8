"""Panoptic models: the merge by hand, the branch, its loss, learning; and the engine around them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from engine_fakes import BrightSquare
from perpixel.config import override
from perpixel.data.loader import test_batches as evaluation_batches
from perpixel.data.open import open_dataset
from perpixel.data.panoptic import segments_of
from perpixel.data.settings import DataConfig
from perpixel.data.settings import TestSize as Size
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.evaluate import evaluate
from perpixel.engine.instances import Instances
from perpixel.engine.load import load
from perpixel.engine.panoptic_metrics import count_segments, panoptic_metrics
from perpixel.engine.predict import Predictor
from perpixel.engine.prediction_folder import predict_to_folder
from perpixel.engine.report import evaluate_checkpoint
from perpixel.engine.segments_picture import draw_segments, segment_colors
from perpixel.engine.train import train
from perpixel.errors import InputError
from perpixel.models.detector import DetectorConfig
from perpixel.models.heads import Losses, Model
from perpixel.models.panoptic import PanopticFPN, stuff_loss
from perpixel.nn.backbones import Backbone
from perpixel.nn.stuff_branch import StuffBranch
from perpixel.ops.mask_windows import Window
from perpixel.ops.panoptic import RELEASED, THESIS, Merge, class_map, merge
from perpixel.recipes import get_recipe
from perpixel.structures import VOID, Batch, Detections, Segments, Targets
from tiny_batches import batch_of, filled


def masks_of(*rows):
    return [whole(torch.tensor([row], dtype=torch.bool)) for row in rows]


def whole(mask):
    """A mask as a window that is all of the photo."""
    return Window(slice(0, mask.shape[0]), slice(0, mask.shape[1]), mask)


def merged(masks, scores, stuff, rule, labels=None):
    labels = torch.zeros(len(scores), dtype=torch.long) if labels is None else torch.tensor(labels)
    return merge(masks, labels, torch.tensor(scores), torch.tensor([stuff]), things=2, rule=rule)


def test_merge_by_hand():
    """One row of 10 pixels, two classes of objects; stuff s of the map has label 2 + s - 1 + ... = 1 + its number there.

    A (score .9) takes its 4 pixels. B (.8) has 5 pixels, 2 of them A's: 2/5 is no more than 0.4, so it takes the other 3.
    C (.7) has 3 pixels, 2 of them B's: more than 0.4, left out. D (.1) is below the score. Stuff: pixel 7 is said to be an
    object, 8 and 9 stuff 2: label 3.
    """
    masks = masks_of(
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 1, 0],
    )
    stuff = [1, 1, 1, 1, 1, 1, 1, 0, 2, 2]
    found = merged(masks, [0.9, 0.8, 0.7, 0.1], stuff, Merge(0.2, 0.4, 0), [1, 0, 0, 0])
    assert found.map.tolist() == [[0, 0, 0, 0, 1, 1, 1, -1, 2, 2]]
    assert found.labels.tolist() == [1, 0, 3]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 1]) and not found.crowd.any()


def test_what_the_rule_leaves_out():
    """A threshold itself passes; stuff of fewer pixels than the area is no segment; an object without own pixels is none."""
    masks = masks_of([1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0])
    stuff = [0, 0, 1, 1, 2, 2]
    found = merged(masks, [0.5, 0.5, 0.5], stuff, Merge(0.5, 1.0, 2))
    assert found.map.tolist() == [[0, 0, 1, 1, 2, 2]] and found.labels.tolist() == [0, 2, 3]
    assert merged(masks, [0.5, 0.5, 0.5], stuff, Merge(0.6, 1.0, 3)).map.tolist() == [[-1] * 6]
    one = merged(masks, [0.5, 0.5, 0.5], [1, 1, 1, 1, 1, 2], Merge(0.6, 1.0, 3))
    assert one.map.tolist() == [[0, 0, 0, 0, 0, -1]] and one.labels.tolist() == [2]


def test_only_masks_that_may_count_are_made():
    def one_mask():
        yield whole(torch.ones(1, 2, dtype=torch.bool))
        raise AssertionError("the second is below the score")

    assert merged(one_mask(), [0.9, 0.1], [0, 0], THESIS).map.tolist() == [[0, 0]]
    assert merged(iter(()), [], [0, 0], THESIS).map.tolist() == [[-1, -1]]


def test_named_rules():
    assert (THESIS.score, THESIS.overlap, RELEASED) == (0.2, 0.4, Merge(0.45, 0.4, 4096))
    with pytest.raises(InputError, match=r"model\.merge\.overlap=2.0 is not between 0 and 1"):
        Merge(overlap=2.0)


def slow_merge(masks, labels, scores, stuff, things, rule):
    """Pixel by pixel: who may have it, in the order of the scores."""
    owner, kept = np.full(stuff.shape, -1), []
    for mask, label, score in zip(masks, labels, scores, strict=True):
        own = [(y, x) for y, x in np.argwhere(mask) if owner[y, x] < 0]
        if score < rule.score or not own or (mask.sum() - len(own)) / mask.sum() > rule.overlap:
            continue
        for y, x in own:
            owner[y, x] = len(kept)
        kept.append(label)
    free = owner < 0
    for number in range(1, stuff.max() + 1):
        region = free & (stuff == number)
        if region.sum() >= max(rule.stuff_area, 1):
            owner[region] = len(kept)
            kept.append(things + number - 1)
    return owner, kept


def cut(mask):
    """A mask as the smallest window around it."""
    y, x = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    rows, columns = slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)
    return Window(rows, columns, mask[rows, columns])


@pytest.mark.parametrize("seed", range(12))
def test_merge_equals_the_loop(seed):
    random = np.random.default_rng(seed)
    masks = np.zeros((6, 14, 18), dtype=bool)
    for mask in masks:
        y, x = random.integers(10), random.integers(12)
        mask[y : y + random.integers(1, 9), x : x + random.integers(1, 9)] = True
    scores = np.sort(random.random(6).astype(np.float32))[::-1].copy()
    labels, stuff = random.integers(3, size=6), random.integers(0, 4, (7, 9)).repeat(2, 0).repeat(2, 1)
    rule = Merge(0.3, float(random.choice([0.0, 0.3, 0.5])), int(random.choice([0, 20, 60])))
    found = merge(
        map(cut, torch.from_numpy(masks)),
        torch.from_numpy(labels),
        torch.from_numpy(scores),
        torch.from_numpy(stuff),
        3,
        rule,
    )
    owner, kept = slow_merge(masks, labels, scores, stuff, 3, rule)
    assert np.array_equal(found.map.numpy(), owner) and found.labels.tolist() == kept


@pytest.mark.parametrize("chunk_bytes", [2**26, 1000])
def test_class_map_is_two_interpolations(chunk_bytes):
    """Four times larger, cropped to the image, brought to the photo's size, then the largest."""
    logits = torch.randn(5, 8, 12, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(logits[None], scale_factor=4, mode="bilinear", align_corners=False)[:, :, :29, :45]
    photo = F.interpolate(large, size=(50, 61), mode="bilinear", align_corners=False)[0]
    found = class_map(logits, 4, (29, 45), (50, 61), chunk_bytes)
    best = photo.topk(2, dim=0).values
    sure = best[0] - best[1] > 1e-5
    assert torch.equal(found[sure], photo.argmax(dim=0)[sure]) and sure.float().mean() > 0.99


def test_branch():
    """Stages halve the stride: one at stride 4 and at 8, two at 16, three at 32; sides that are no power of two are cut."""
    branch = StuffBranch(16, (4, 8, 16, 32), 32, 5)
    assert [len(stages) for stages in branch.levels] == [1, 1, 2, 3]
    pyramid = tuple(torch.randn(2, 16, -(-50 // s), -(-70 // s)) for s in (1, 2, 4, 8))
    assert branch(pyramid).shape == (2, 5, 50, 70)
    alone = pyramid[2]
    for stage in branch.levels[2]:
        alone = F.interpolate(stage(alone), scale_factor=2, mode="bilinear", align_corners=False)
    zero = tuple(torch.zeros_like(level) for level in pyramid)
    # GroupNorm of zeros is its shift, zero at first: the other levels add nothing.
    only = branch((zero[0], zero[1], pyramid[2], zero[3]))
    torch.testing.assert_close(only, branch.predictor(alone[:, :, :50, :70]))
    with pytest.raises(InputError, match="width=40 does not divide into GroupNorm's 32 groups"):
        StuffBranch(16, (4, 8), 40, 5)


def stuff_targets(*maps):
    return tuple(
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), stuff=torch.tensor(m, dtype=torch.uint8))
        for m in maps
    )


def test_stuff_loss_by_hand():
    """Equal logits of 3 classes: log 3 at every pixel that is not void, however many there are; none at all: 0."""
    targets = stuff_targets([[0, 1, VOID, VOID], [2, VOID, VOID, VOID]], [[VOID] * 4] * 2)
    logits = torch.zeros(2, 3, 1, 2, requires_grad=True)
    assert stuff_loss(logits, targets).item() == pytest.approx(math.log(3))
    nothing = stuff_loss(logits, stuff_targets(*[[[VOID] * 4] * 2] * 2))
    nothing.backward()
    assert nothing.item() == 0 and not logits.grad.any()
    # One pixel sure of its class (logit 2 against 0, 0), three pixels void or equal.
    sure = torch.tensor([[[[2.0]], [[0.0]], [[0.0]]]])
    expected = math.log(1 + 2 * math.exp(-2))
    assert float(stuff_loss(sure, stuff_targets([[0]]))) == pytest.approx(expected)
    with pytest.raises(InputError, match=r"the data came without: set data\.stuff=true"):
        stuff_loss(sure, (replace(targets[0], stuff=None),))


def tiny(name="condinst_panoptic_shapes", **merge_settings):
    """A panoptic recipe on a network of a few layers."""
    recipe = get_recipe(name)
    detector = recipe.model.detector
    backbone = Backbone("test_resnet", stages=(4, 8, 16, 32), weights=None, norm="train", frozen_stages=0)
    detector = replace(detector, backbone=backbone, neck=replace(detector.neck, channels=64))
    rule = replace(recipe.model.merge, **merge_settings)
    return replace(recipe, model=replace(recipe.model, detector=detector, width=32, merge=rule))


def test_what_a_panoptic_model_needs():
    with pytest.raises(InputError, match="needs classes of stuff, and the data have none"):
        tiny().model.build(classes=3)
    with pytest.raises(InputError, match=r"choose model\.detector\.instance\.kind"):
        PanopticFPN(detector=DetectorConfig()).build(classes=3, stuff=2)


def test_detector_losses_are_the_detectors_own():
    """The branch adds one loss and changes no other; P2 is its alone."""
    model, batch = tiny().model.build(classes=3, stuff=2).eval(), batch_of((3, 2))
    torch.manual_seed(1)
    losses = model.loss(batch)
    torch.manual_seed(1)
    alone = model.detector.loss(batch)
    assert set(losses) == {*alone, "stuff"} and all(torch.equal(losses[name], alone[name]) for name in alone)
    assert model.detector.box_head.locate(((1, 1),) * 3).strides.tolist() == [8, 16, 32]
    assert model.branch.stride == 4
    assert replace_weight(model, 0.0).loss(batch)["stuff"].item() == 0


def replace_weight(model, weight):
    model.weight = weight
    return model


@pytest.mark.parametrize("name", ["condinst_panoptic_shapes", "blendmask_panoptic_shapes"])
def test_masks_in_either_frame_become_segments(name):
    """Image masks (CondInst) and box masks (BlendMask): segments of the photo's size, things first, each with pixels."""
    model = tiny(name, score=0.0, stuff_area=1).model
    model = replace(model, detector=override(model.detector, ["selection.threshold=0.001", "selection.keep=8"]))
    batch = replace(batch_of((1, 1)), targets=None, originals=((50, 60), (120, 110)))
    for found, size in zip(model.build(classes=3, stuff=2).eval().predict(batch), batch.originals, strict=True):
        segments = found.segments
        assert segments.map.shape == size and len(found) == 8
        assert sorted(set(segments.map.unique().tolist()) - {-1}) == list(range(len(segments)))
        assert (segments.labels.diff().clamp(max=0)[segments.labels[1:] >= 3] == 0).all() and segments.labels.max() < 5


def picture():
    """Two bright squares before a blue upper and a green lower half; the truth of both kinds."""
    image = torch.zeros(3, 96, 96, dtype=torch.uint8)
    image[2, :48], image[1, 48:] = 150, 120
    boxes, labels = torch.tensor([[8.0, 8, 40, 40], [52.0, 44, 92, 84]]), torch.tensor([0, 1])
    for (x1, y1, x2, y2), label in zip(boxes.long().tolist(), labels.tolist(), strict=True):
        image[:, y1:y2, x1:x2] = 40
        image[label * 2, y1:y2, x1:x2] = 230
    masks, centers = filled(boxes, (96, 96))
    stuff = torch.ones(96, 96, dtype=torch.uint8)
    stuff[48:] = 2
    stuff[masks.any(dim=0)] = 0
    rows = torch.where(masks[0], 0, torch.where(masks[1], 1, stuff.int() + 1))
    truth = Segments(rows, torch.tensor([0, 1, 2, 3]), torch.ones(4), torch.zeros(4, dtype=torch.bool))
    return image, Targets(boxes, labels, masks, centers, stuff=stuff), truth


def test_it_learns():
    """One picture until a tiny network cuts it as the truth does: PQ above 0.85, every pixel of some segment or nearly."""
    torch.manual_seed(0)
    image, target, truth = picture()
    model = tiny("condinst_panoptic_mobilenetv2", stuff_area=64, score=0.3).model.build(classes=2, stuff=2).train()
    batch = Batch(image[None], ((96, 96),), ((96, 96),), (target,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(45):
        optimizer.zero_grad()
        sum(model.loss(batch).values()).backward()
        optimizer.step()
    found = model.eval().predict(replace(batch, targets=None))[0].segments
    quality = panoptic_metrics([count_segments(truth, found, 4)], ("a", "b"), ("c", "d"))
    assert quality.summary["PQ"] > 0.85, quality
    assert (found.map < 0).float().mean() < 0.05


class Knows(Model):
    """Gives the truth of a data set's image `Batch.ids` as segments, its objects as detections."""

    def __init__(self, dataset):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.dataset = dataset

    def loss(self, batch: Batch) -> Losses:
        return {"none": self.weight.sum()}

    def predict(self, batch: Batch) -> list[Detections]:
        found = []
        for index, size, original in zip(batch.ids, batch.sizes, batch.originals, strict=True):
            record = self.dataset.record(index)
            boxes = torch.from_numpy(record.boxes) * (size[0] / original[0])
            labels = torch.from_numpy(record.labels)
            segments = segments_of(self.dataset, index)
            found.append(Detections(boxes, torch.ones(len(boxes)), labels, size, segments=segments))
        return found


def test_evaluation_gives_panoptic_quality(tmp_path):
    dataset = open_dataset("scenes:4")
    data = DataConfig(workers=0, test=Size(80, 96))
    found = evaluate(Knows(dataset), dataset, evaluation_batches(dataset, data, batch_size=2), progress=False)
    assert found.summary["panoptic/PQ"] == 1 == found.summary["panoptic/PQ_stuff"]
    kinds = {row.name: row.thing for row in found.panoptic.per_class}
    assert kinds["sky"] is False and kinds[dataset.classes[0]] is True
    # Against data without stuff there is nothing to compare segments with.
    plain = open_dataset("shapes:4")
    known = evaluate(Knows(dataset), plain, evaluation_batches(plain, data, batch_size=2), progress=False)
    assert known.panoptic is None and "panoptic/PQ" not in known.summary


def test_segments_go_to_files_that_are_read_again(tmp_path):
    """Predicted on photos: pictures and a json in COCO's form, which opens as a data set and holds the same segments."""
    dataset = open_dataset("scenes:2:5")
    (tmp_path / "photos").mkdir()
    for index in range(2):
        Image.fromarray(dataset.image(index)).save(tmp_path / "photos" / f"{index}.png")
    predictor = Predictor(
        Knows(dataset), dataset.classes, Size(80, 96), "cpu", category_ids=dataset.category_ids, stuff=dataset.stuff
    )
    written = predict_to_folder(predictor, tmp_path / "photos" / "0.png", tmp_path / "out", progress=False)
    assert written.panoptic == tmp_path / "out" / "panoptic.json"
    again = open_dataset(written.panoptic, tmp_path / "photos")
    assert again.classes == dataset.classes and again.stuff == dataset.stuff
    truth, read = segments_of(dataset, 0), segments_of(again, 0)
    assert sorted(read.labels.tolist()) == sorted(truth.labels.tolist())
    metrics = panoptic_metrics([count_segments(truth, read, 20)], [str(i) for i in range(20)], ())
    assert metrics.summary["PQ"] == 1
    assert Image.open(written.pictures[0]).height > 160  # enlarged, and the legend below


def test_no_segments_no_files(tmp_path):
    Image.fromarray(np.zeros((50, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    predictor = Predictor(BrightSquare(), ["square"], Size(50, 60), device="cpu")
    written = predict_to_folder(predictor, tmp_path / "a.png", tmp_path / "out", progress=False)
    assert written.panoptic is None and not (tmp_path / "out" / "panoptic.json").exists()


def test_instances_hold_segments():
    image, target, truth = picture()
    detections = Detections(target.boxes, torch.tensor([0.9, 0.3]), target.labels, (96, 96), segments=truth)
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    found = Instances.from_detections(detections, (96, 96), ("a", "b"), 0.5, pixels, stuff_names=("sky", "grass"))
    assert len(found) == 1 and found.segment_names == ["a", "b", "sky", "grass"]
    assert "4 segments" in repr(found) and torch.equal(found.keep(0.95).segments.map, truth.map)
    drawn = np.asarray(found.plot())
    assert drawn.shape[1] == 384 and drawn.shape[0] > 384
    assert np.asarray(replace(found, frame=3).plot()).shape[0] == 384


def test_colors_of_segments():
    """Objects differ from each other, stuff of a class is alike in every picture; void keeps the photo, darker."""
    colors = segment_colors([0, 0, 1, 5, 6], things=4)
    assert len(set(colors)) == 5 and segment_colors([6], things=4) == [colors[4]]
    image = np.full((400, 400, 3), 200, dtype=np.uint8)
    rows = torch.full((400, 400), -1)
    rows[:200] = 0
    half = Segments(rows, torch.tensor([5]), torch.ones(1), torch.zeros(1, dtype=torch.bool))
    drawn = np.asarray(draw_segments(image, half, ["sky"], 4, legend=False))
    assert drawn.shape == (400, 400, 3) and (drawn[300] == 80).all()
    assert np.abs(drawn[100, 100] - (0.4 * 200 + 0.6 * np.array(colors[3]))).max() <= 1


def test_trained_evaluated_and_used(tmp_path):
    """Two steps of a tiny network: the checkpoint knows its stuff, `evaluate` writes numbers and pictures, `predict` segments."""
    settings = """training.steps=2 training.batch_size=2 training.warmup_steps=1 training.save_every=1 data.workers=0
        data.train=scenes:3 data.val=scenes:2:1 data.test.short_side=64 data.test.max_side=96 data.augment.short_sides=[64]
        data.augment.max_side=96 model.merge.score=0.0"""
    recipe = override(tiny(), settings.split())
    result = train(recipe, tmp_path / "run", device="cpu")
    assert "panoptic/PQ" in result.metrics and result.best is not None
    checkpoint = load_checkpoint(result.last)
    assert checkpoint.stuff.names == ("sky", "grass", "water") and checkpoint.stuff.category_ids == (101, 102, 103)
    assert build_model(checkpoint).branch.predictor.out_channels == 4
    found = evaluate_checkpoint(result.last, lambda r: r, out=tmp_path / "report", examples=1)
    report = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert report["panoptic"]["summary"]["PQ"] == found.panoptic.summary["PQ"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "panoptic quality" in page and page.count('["predicted segments","data:image/jpeg') == 1
    one = load(result.last, device="cpu").predict(open_dataset("scenes:1").image(0))
    assert one.segments.map.shape == one.size and one.stuff_names == ("sky", "grass", "water")
