"""Every recipe: its settings survive JSON, and shrunk to a tiny network it trains with objects in both images, one and none."""

from dataclasses import replace

import pytest
import torch

from parity.whole_masks import resize_image_masks
from perpixel.config import ConfigError
from perpixel.engine.recipe import recipe_from_json, recipe_to_json
from perpixel.errors import InputError
from perpixel.models.detector import DetectorConfig
from perpixel.models.dr1mask_panoptic import DR1MaskPanoptic
from perpixel.models.panoptic import PanopticFPN
from perpixel.models.segmenter import Segmenter
from perpixel.nn.backbones import Backbone, without_pretrained
from perpixel.ops.boxes import pairwise_iou
from perpixel.recipes import all_recipes, get_recipe
from perpixel.structures import VOID, Batch, Targets
from tiny_batches import batch_of, filled

NAMES = sorted(all_recipes())
SEMANTIC = [name for name in NAMES if isinstance(get_recipe(name).model, Segmenter)]


def shrunk_semantic(model: Segmenter) -> Segmenter:
    """The same method on a network of a few layers."""
    tiny = Backbone("test_resnet", stages=model.backbone.stages, weights=None, norm="train", frozen_stages=0)
    return replace(model, backbone=tiny, width=8)


def shrunk(model: DetectorConfig | PanopticFPN | DR1MaskPanoptic) -> DetectorConfig | PanopticFPN | DR1MaskPanoptic:
    """The same method on a network of a few layers; deformable stages need a ResNet with bottlenecks."""
    if isinstance(model, PanopticFPN):
        return replace(model, detector=shrunk(model.detector), width=32)
    if isinstance(model, DR1MaskPanoptic):
        return replace(model, detector=shrunk(model.detector))
    deformable = model.backbone.deformable_stages
    tiny = Backbone("resnet26t" if deformable else "test_resnet", weights=None, norm="train", frozen_stages=0)
    tiny = replace(tiny, stages=model.backbone.stages, deformable_stages=deformable, blur=model.backbone.blur)
    return replace(model, backbone=tiny, neck=replace(model.neck, channels=64))


@pytest.mark.parametrize("name", NAMES)
def test_settings_survive_json(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe_from_json(recipe_to_json(recipe)) == recipe


@pytest.mark.parametrize("name", SEMANTIC)
def test_a_tiny_semantic_one_trains_and_predicts(name):
    """Of pixels whose class is known, and of void alone; in windows of as many frames as the recipe reads."""
    recipe = get_recipe(name)
    model = shrunk_semantic(recipe.model).build(classes=0, stuff=2).train()
    for stuff in ((1, 2), (2, VOID), (VOID, VOID)):
        frame = batch_of((0, 0))
        maps = [
            torch.where(target.stuff == VOID, VOID, value) for target, value in zip(frame.targets, stuff, strict=True)
        ]
        targets = tuple(replace(t, stuff=one.to(torch.uint8)) for t, one in zip(frame.targets, maps, strict=True))
        frame = replace(frame, targets=targets)
        batch = replace(frame, before=(frame,) * (recipe.data.frames - 1))
        model.zero_grad(set_to_none=True)
        losses = model.loss(batch)
        assert all(torch.isfinite(loss) for loss in losses.values()), losses
        sum(losses.values()).backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert losses["pixels"] == 0
    found = model.eval().predict(replace(batch, targets=None))
    assert [one.segments.map.shape for one in found] == [(96, 96)] * 2 and all(len(one) == 0 for one in found)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SEMANTIC])
def test_a_tiny_one_trains_and_predicts(name):
    model = shrunk(get_recipe(name).model).build(classes=3, stuff=2).train()
    detector = getattr(model, "detector", model)
    for objects in ((4, 3), (0, 3), (0, 0)):
        batch = batch_of(objects)
        model.zero_grad(set_to_none=True)
        losses = model.loss(batch)
        assert all(torch.isfinite(loss) for loss in losses.values()), losses
        sum(losses.values()).backward()
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert losses["class"] > 0 and losses.get("box", 0) == 0
    found = model.eval().predict(replace(batch, targets=None))
    assert len(found) == 2 and all(torch.isfinite(f.boxes).all() for f in found)
    added = [f.masks if f.keypoints is None else f.keypoints for f in found]
    assert all((more is not None) == (detector.instance_head is not None) for more in added)
    assert all((f.segments is not None) == (detector is not model) for f in found)


def test_losses_are_float32_under_autocast():
    model = shrunk(get_recipe("fcos_mobilenetv2").model).build(classes=3).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.loss(batch_of((4, 3)))
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="did you mean fcos_r50_1x"):
        get_recipe("fcos_r50_1")


def test_pretrained_weights_are_left_out_for_checkpoints():
    model = get_recipe("fcos_r50_1x").model
    assert model.backbone.weights == "imagenet" and without_pretrained(model).backbone.weights is None


@pytest.mark.parametrize("change", [{"neck": {"channels": 100}}, {"neck": {"top_levels": 1}}])
def test_settings_that_do_not_fit_together_are_said_in_a_sentence(change):
    recipe = get_recipe("fcos_mobilenetv2")
    model = shrunk(recipe.model)
    model = replace(model, neck=replace(model.neck, **change["neck"]))
    with pytest.raises((InputError, ConfigError), match=r"model\."):
        model.build(classes=2)


@pytest.mark.parametrize("name", ["fcos_mobilenetv2", "retinanet_mobilenetv2", "condinst_mobilenetv2"])
def test_it_learns(name):
    """One picture of bright squares on a dark ground, until a tiny detector finds each.

    The best box of each class overlaps its square by more than 0.7, its mask by more than 0.8; every sure one is a square of
    the right class.
    """
    torch.manual_seed(0)
    model = shrunk(get_recipe(name).model).build(classes=2).train()
    image = torch.full((3, 96, 96), 40, dtype=torch.uint8)
    boxes, labels = torch.tensor([[8.0, 8, 40, 40], [52.0, 44, 92, 84]]), torch.tensor([0, 1])
    for (x1, y1, x2, y2), label in zip(boxes.long().tolist(), labels.tolist(), strict=True):
        image[label * 2, y1:y2, x1:x2] = 220
    batch = Batch(torch.stack([image, image.flip(2)]), ((96, 96),) * 2)
    flipped = torch.stack([96 - boxes[:, 2], boxes[:, 1], 96 - boxes[:, 0], boxes[:, 3]], dim=1)
    targets = tuple(Targets(b, labels, *filled(b, (96, 96))) for b in (boxes, flipped))
    batch = replace(batch, targets=targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(80):
        optimizer.zero_grad()
        sum(model.loss(batch).values()).backward()
        optimizer.step()
    found = model.eval().predict(replace(batch, targets=None))[0]
    for label in (0, 1):
        best = found.boxes[found.labels == label][0]
        assert pairwise_iou(best[None], boxes[label][None]) > 0.7
        if found.masks is not None:
            row = torch.nonzero(found.labels == label)[0]
            mask = resize_image_masks(found.masks.rows(row).values, found.masks.stride, (96, 96), (96, 96))[0]
            truth = targets[0].masks[label]
            assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    sure = found.scores > 0.5
    nearest = pairwise_iou(found.boxes[sure], boxes).max(dim=1)
    assert (nearest.values > 0.5).all() and torch.equal(nearest.indices, found.labels[sure])
