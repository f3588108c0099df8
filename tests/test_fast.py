"""Faster models find what the plain ones find, to the stated bounds, and the caller's model stays as it is."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from perpixel.data.settings import TestSize
from perpixel.engine.fast import bfloat16_hardware, optimize
from perpixel.engine.predict import Predictor
from perpixel.errors import InputError
from perpixel.models.detector import Detector, DetectorConfig
from perpixel.models.fcos import FCOS, FCOSHead
from perpixel.models.retinanet import RetinaNetHead
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.ops.boxes import overlap
from perpixel.recipes import get_recipe
from perpixel.structures import Batch, Targets

TINY = Backbone("test_resnet", weights=None)
RECIPES = (
    "fcos_mobilenetv2",
    "retinanet_mobilenetv2",
    "condinst_mobilenetv2",
    "boxinst_mobilenetv2",
    "pointins_mobilenetv2",
)
HAS_BFLOAT16, HARDWARE = bfloat16_hardware(torch.device("cpu"))


def built(name: str) -> Detector:
    """A recipe's model with a tiny backbone, its logits spread so that some detections pass."""
    config = get_recipe(name).model
    assert isinstance(config, DetectorConfig)
    model = replace(config, backbone=TINY).build(classes=3)
    assert isinstance(model.box_head, FCOSHead | RetinaNetHead)
    torch.nn.init.normal_(model.box_head.class_logits.weight, std=0.05)
    torch.nn.init.constant_(model.box_head.class_logits.bias, -2.0)
    return model.eval()


def batch() -> Batch:
    return Batch(torch.randint(256, (2, 3, 96, 128), dtype=torch.uint8), ((96, 128), (90, 100)))


@pytest.mark.parametrize("name", RECIPES)
def test_exact(name):
    model = built(name)
    before = copy.deepcopy(model.state_dict())
    done = optimize(model, "exact")
    images = batch()
    for ours, plain in zip(done.model.predict(images), model.predict(images), strict=True):
        assert len(ours) == len(plain) > 0
        torch.testing.assert_close(ours.boxes, plain.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(ours.scores, plain.scores, rtol=0, atol=1e-4)
        assert torch.equal(ours.labels, plain.labels)
        assert type(ours.masks) is type(plain.masks)
        if ours.masks is not None and plain.masks is not None:
            torch.testing.assert_close(ours.masks.values, plain.masks.values, rtol=0, atol=1e-4)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert not model._forward_pre_hooks
    assert "batch norms folded" in done.says and "float32" in done.says


@pytest.fixture(scope="module")
def trained() -> tuple[Detector, torch.Tensor]:
    """A detector that has learned to find a square, and pictures of squares it has not seen."""
    torch.manual_seed(0)
    config = DetectorConfig(
        backbone=replace(TINY, norm="train", frozen_stages=0),
        neck=FPN(channels=64),
        head=FCOS(class_convs=1, box_convs=1, initial_distance=2.0),
    )
    model = config.build(classes=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def squares(count: int) -> tuple[torch.Tensor, tuple[Targets, ...]]:
        images = torch.full((count, 3, 96, 96), 40, dtype=torch.uint8)
        boxes = torch.randint(0, 50, (count, 2)).repeat(1, 2) + torch.randint(16, 44, (count, 1)) * torch.tensor(
            [0, 0, 1, 1]
        )
        for image, (x1, y1, x2, y2) in zip(images, boxes.tolist(), strict=True):
            image[:, y1:y2, x1:x2] = 220
        return images, tuple(Targets(box[None].float(), torch.zeros(1, dtype=torch.long)) for box in boxes)

    for _ in range(60):
        images, targets = squares(4)
        optimizer.zero_grad()
        sum(model.loss(Batch(images, ((96, 96),) * 4, targets=targets)).values()).backward()
        optimizer.step()
    return model.eval(), squares(8)[0]


@pytest.mark.skipif(not HAS_BFLOAT16, reason=f"bfloat16 is not offered here: {HARDWARE}")
@pytest.mark.parametrize("name", RECIPES)
def test_bf16_runs_every_method(name):
    """Decoding, selection and masks are float32 whatever the network computes in."""
    done = optimize(built(name), "bf16")
    found = done.model.predict(batch())[0]
    assert len(found) > 0 and found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.masks is None or found.masks.values.dtype == torch.float32
    assert "bfloat16" in done.says


@pytest.mark.skipif(not HAS_BFLOAT16, reason=f"bfloat16 is not offered here: {HARDWARE}")
def test_bf16_bound(trained):
    """On a trained model: every score within 0.02, boxes of what is found at IoU above 0.95."""
    model, images = trained
    fast = optimize(model, "bf16").model
    sizes = ((96, 96),) * len(images)
    with torch.inference_mode():
        normalized = model.normalized(Batch(images, sizes))
        plain, ours = model(normalized)[0], fast(normalized)[0]
        scores, expected = ((x.logits.sigmoid() * x.quality.sigmoid()[..., None]).sqrt()[..., 0] for x in (ours, plain))
    found = expected > 0.5
    assert found.flatten(1).any(dim=1).sum() >= 6
    assert (scores - expected).abs().max() < 0.02
    iou, _ = overlap(ours.boxes[found], plain.boxes[found])
    assert iou.min() > 0.95


def test_levels():
    model = built("fcos_mobilenetv2")
    with pytest.raises(InputError, match="say off, exact, bf16, compile"):
        optimize(model, "fastest")
    images = batch()
    plain, off = model.predict(images)[0], optimize(model, False).model.predict(images)[0]
    torch.testing.assert_close(off.boxes, plain.boxes, rtol=0, atol=0)
    assert ("bfloat16" in optimize(model, True).says.split("(")[0]) == HAS_BFLOAT16


def test_bf16_needs_hardware(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(InputError, match="neither AMX nor avx512_bf16"):
        optimize(built("fcos_mobilenetv2"), "bf16")
    assert "float32 (the processor has neither" in optimize(built("fcos_mobilenetv2"), True).says


def test_a_predictor_stays_as_it_is():
    plain = Predictor(built("fcos_mobilenetv2"), ("a", "b", "c"), TestSize(96, 128), "cpu")
    fast = plain.optimize("exact")
    assert fast is not plain and fast.model is not plain.model
    assert plain.speed == "as it was made" and "folded" in fast.speed
    photo = torch.randint(256, (3, 96, 128), dtype=torch.uint8)
    ours, expected = next(fast.stream(photo, score=0.05)), next(plain.stream(photo, score=0.05))
    assert len(ours) == len(expected) > 0
    assert abs(ours.boxes - expected.boxes).max() < 1e-3


KEEP = """
import resource, torch
from perpixel.engine.allocator import keep_freed_memory
assert keep_freed_memory()
def touch():
    for _ in range(5):
        torch.ones(12 * 2**20)  # 48 MiB: above the size that malloc maps anew, whatever it has learned
touch()
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_kept():
    """240 MiB written anew are 61,440 pages of 4 KiB; kept, hardly any is mapped again."""
    done = subprocess.run([sys.executable, "-c", KEEP], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 1000
