"""Gradients of our losses, one by one, against finite differences in float64; test_gradients.py has those of whole methods.
bfloat16 is never NaN (bf16.py is the long mode)."""

import pytest
import torch
from bf16 import METHODS, batches_without_nan
from torch.autograd import gradcheck

from perpixel.models.mask_losses import mask_cross_entropy, pixel_cross_entropy
from perpixel.ops.affinity import log_same
from perpixel.ops.dr1 import weighted_sum
from perpixel.ops.losses import centerness, dice_loss, focal_loss, smooth_l1
from perpixel.search.ppo import ppo_loss


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


LABELS = torch.tensor([0, 2, -1, 1, -1])
TRUTH = torch.rand(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64).round()


CASES = {
    "focal": (lambda x: focal_loss(x, LABELS), lambda: (random(5, 3),)),
    "focal, gamma 1.5, weighted": (
        lambda x: focal_loss(x, LABELS, 0.4, 1.5, torch.arange(5.0, dtype=torch.float64)),
        lambda: (random(5, 3),),
    ),
    "focal, far logits": (lambda x: focal_loss(30 * x, LABELS), lambda: (random(5, 3),)),
    "smooth L1": (lambda x: smooth_l1(x, 0.7), lambda: (random(9),)),
    "dice": (lambda x: dice_loss(x.sigmoid(), TRUTH), lambda: (random(3, 7),)),
    "dice of nothing": (lambda x: dice_loss(x.sigmoid(), torch.zeros_like(TRUTH)), lambda: (random(3, 7),)),
    "masks": (
        lambda x: mask_cross_entropy(x, torch.arange(18).reshape(2, 3, 3) % 2 == 0),
        lambda: (random(2, 3, 3),),
    ),
    "pixels": (
        lambda x: pixel_cross_entropy(x, (torch.arange(32).reshape(1, 4, 8) % 5 - 1).clamp(min=0)),
        lambda: (random(1, 4, 2, 4),),
    ),
    "pairs of pixels (BoxInst)": (
        lambda a, b: log_same(5 * a, 5 * b),
        lambda: (random(2, 3, 3), random(2, 3, 3)),
    ),
    "centre-ness": (centerness, lambda: ((torch.rand(6, 4, dtype=torch.float64) + 0.1).requires_grad_(),)),
    "answers of a controller (PPO)": (
        lambda x: ppo_loss(x, torch.zeros(9, dtype=torch.float64), torch.arange(9.0, dtype=torch.float64) - 4, 0.1),
        lambda: (torch.linspace(-0.35, 0.37, 9, dtype=torch.float64).requires_grad_(),),
    ),
    "sum of regions": (weighted_sum, lambda: (random(2, 3, 4, 4), random(2, 3))),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_against_finite_differences(name):
    function, make = CASES[name]
    assert gradcheck(function, make(), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["condinst_mobilenetv2", "nas_fcos_mobilenetv2"])
def test_a_few_batches_in_bfloat16(name):
    assert batches_without_nan(name, 2) == 2


def test_every_method_has_its_batches():
    methods = (
        "fcos",
        "retinanet",
        "condinst",
        "boxinst",
        "pointins",
        "meinst",
        "smalmask",
        "blendmask",
        "dr1mask",
        "directpose",
    )
    assert all(any(name.startswith(method) for name in METHODS) for method in methods)
