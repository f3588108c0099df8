"""Every loss of every method against finite differences: of the whole network, along a random direction of all its parameters.

With everything in float64 a step of 1e-8 tells a derivative to six digits. A network of ReLUs and maxima has kinks, and a step
over one is off by more; steps of other lengths then are not. A wrong gradient is wrong with each.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from bf16 import METHODS

from perpixel.models.heads import Losses, Model
from perpixel.recipes import get_recipe
from perpixel.structures import Batch
from test_recipes import shrunk
from tiny_batches import batch_of

STEPS = (1e-8, 1e-7, 1e-9)
CLOSE = 1e-5
LOSSES = {
    "blendmask_panoptic": "class box centerness mask semantic stuff",
    "boxinst": "class box centerness projection pairwise",
    "condinst": "class box centerness mask",
    "directpose": "class centerness keypoints heat_map",
    "dr1mask": "class box centerness mask semantic",
    "dr1mask_panoptic": "class box centerness mask panoptic",
    "meinst": "class box centerness mask",
    "pointins": "class box centerness mask",
    "retinanet": "class box",
    "smalmask": "class box centerness mask",
    "smalmask2": "class box centerness mask",
}
"""By method; others are sums of the same: NAS-FCOS has FCOS's, a head on RetinaNet its own beside RetinaNet's."""


@pytest.fixture
def exact(monkeypatch):
    """Whatever says float32 computes in float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.double)
    yield
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)


def network(name: str) -> tuple[Model, Batch]:
    """A shrunk method with its parameters shaken, so that none is at a kink by design, and a batch past every warm-up."""
    torch.manual_seed(0)
    model = shrunk(get_recipe(f"{name}_mobilenetv2").model).build(classes=3, stuff=2).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    batch = batch_of((4, 3))
    targets = tuple(replace(target, boxes=target.boxes.double()) for target in batch.truth())
    return model, replace(batch, images=batch.images.double(), targets=targets, progress=10**6)


def errors(model: torch.nn.Module, losses: Callable[[], Losses]) -> dict[str, float]:
    """Of each loss: how far its gradient along a direction is from the finite difference, relative to the larger of it and 1."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    direction = [torch.randn_like(parameter) for parameter in parameters]

    def moved(step: float) -> Losses:
        with torch.no_grad():
            for parameter, way in zip(parameters, direction, strict=True):
                parameter.add_(way, alpha=step)
        torch.manual_seed(0)
        found = losses()
        with torch.no_grad():
            for parameter, way in zip(parameters, direction, strict=True):
                parameter.sub_(way, alpha=step)
        return found

    torch.manual_seed(0)
    found, slopes = losses(), {}
    for name, loss in found.items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(gradients, direction, strict=True)
        slopes[name] = sum(float((gradient * way).sum()) for gradient, way in pairs if gradient is not None)
    off = dict.fromkeys(found, float("inf"))
    for step in STEPS:
        if max(off.values()) < CLOSE:
            break
        with torch.no_grad():
            ahead, behind = moved(step), moved(-step)
        for name, slope in slopes.items():
            difference = float(ahead[name] - behind[name]) / (2 * step)
            off[name] = min(off[name], abs(difference - slope) / max(1.0, abs(slope)))
    assert all(abs(slope) > 1e-3 for slope in slopes.values()), slopes  # else nothing is compared
    return off


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_a_method(name, exact):
    model, batch = network(name)
    off = errors(model, lambda: model.loss(batch))
    assert set(off) == set(LOSSES[name].split())
    assert max(off.values()) < CLOSE, off


def test_a_wrong_gradient_is_seen(exact):
    """One per cent of it is missing."""

    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(_, x):
            return x.clone()

        @staticmethod
        def backward(_, gradient):
            return 0.99 * gradient

    layer = torch.nn.Linear(3, 1)
    x = torch.randn(4, 3)
    right = errors(layer, lambda: {"loss": layer(x).square().sum()})
    wrong = errors(layer, lambda: {"loss": Cut.apply(layer(x).square().sum())})
    assert right["loss"] < CLOSE < 1e-3 < wrong["loss"]


def test_no_method_is_missing():
    left = {name.removesuffix("_mobilenetv2") for name in METHODS} - set(LOSSES)
    assert left == {
        "fcos",  # is in all others
        "blendmask",
        "condinst_panoptic",
        "nas_fcos",
        "nas_fcos_found",
        "nas_fcos_found_head",
        "pointins_retinanet",
    }
