"""BiFPN by hand: the order of its sums, their weights, shapes; on every detector, with objects and without."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from perpixel.config import override
from perpixel.errors import InputError
from perpixel.models.detector import DetectorConfig
from perpixel.nn.backbones import Backbone
from perpixel.nn.bifpn import BiFPN, Cell, Fusion
from perpixel.recipes import get_recipe
from perpixel.structures import Batch, Targets


def plain(module):
    """Every convolution passes its input on, every norm too."""
    for conv in module.modules():
        if isinstance(conv, torch.nn.Conv2d):
            torch.nn.init.dirac_(conv.weight)
    return module.eval()


def test_a_sum_by_hand():
    """Weights 3, -1, 1 become 3, 0, 1 over 4.0001; of maps 2, 5, -4 the sum is 2 / 4.0001; swish(x) = x sigmoid(x).

    0.499988 x sigmoid(0.499988) = 0.499988 x 0.622457 = 0.311221; BatchNorm of fresh statistics divides by sqrt(1.00001).
    """
    fusion = plain(Fusion(3, 2, "batch"))
    with torch.no_grad():
        fusion.weights.copy_(torch.tensor([3.0, -1.0, 1.0]))
        out = fusion(*(torch.full((1, 2, 3, 3), value) for value in (2.0, 5.0, -4.0)))
    torch.testing.assert_close(out, torch.full_like(out, 0.311219), atol=2e-6, rtol=0)


def test_no_weight_left():
    """Where all weights are negative the sum is 0, not 0 / 0, and the gradient is finite."""
    fusion = Fusion(2, 2, "batch").train()
    with torch.no_grad():
        fusion.weights.fill_(-1.0)
    out = fusion(torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 3))
    out.square().sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(fusion.weights.grad).all()


def test_a_cell_against_its_figure():
    """Three levels and what each sum adds: down P4' = P4 + P5, P3'' = P3 + P4', up P4'' = P4 + P4' + P3'', P5'' = P5 + P4''."""
    torch.manual_seed(0)
    cell = Cell(3, 4, "batch").eval()
    for fusion in cell.modules():
        if isinstance(fusion, Fusion):
            torch.nn.init.uniform_(fusion.weights)
    p3, p4, p5 = (torch.randn(1, 4, side, side) for side in (8, 4, 2))
    with torch.no_grad():
        between = cell.down[1](p4, p5.repeat_interleave(2, 2).repeat_interleave(2, 3))
        out3 = cell.down[0](p3, between.repeat_interleave(2, 2).repeat_interleave(2, 3))
        out4 = cell.up[0](p4, between, F.max_pool2d(out3, 3, 2, 1))
        out5 = cell.up[1](p5, F.max_pool2d(out4, 3, 2, 1))
        for ours, wanted in zip(cell((p3, p4, p5)), (out3, out4, out5), strict=True):
            assert torch.equal(ours, wanted)


def test_levels_of_odd_sides():
    """A backbone's maps of 13 x 25, 7 x 13, 4 x 7 cells keep their sizes; the top levels halve the coarsest, rounded up."""
    neck = BiFPN(channels=32, repeats=2, norm="group").build((8, 16, 24), (8, 16, 32))
    maps = tuple(torch.randn(1, c, h, w) for c, h, w in ((8, 13, 25), (16, 7, 13), (24, 4, 7)))
    assert [tuple(x.shape) for x in neck(maps)] == [
        (1, 32, h, w) for h, w in ((13, 25), (7, 13), (4, 7), (2, 4), (1, 2))
    ]
    assert neck.strides == (8, 16, 32, 64, 128)


def test_laterals_are_in_front_of_the_first_cell_alone():
    neck = BiFPN().build((512, 1024, 2048), (8, 16, 32))
    assert len(neck.cells) == 6
    assert [lateral[0].weight.shape for lateral in neck.lateral] == [(160, c, 1, 1) for c in (512, 1024, 2048)]
    assert all(conv.kernel_size == (3, 3) for conv in neck.cells.modules() if isinstance(conv, torch.nn.Conv2d))


@pytest.mark.parametrize("change", [{"norm": "group", "channels": 100}, {"repeats": 0}])
def test_settings_that_do_not_fit(change):
    with pytest.raises(InputError, match=r"model\.neck\."):
        replace(BiFPN(), **change).build((8, 16, 24), (8, 16, 32))
    with pytest.raises(InputError, match=r"model\.neck\.top_levels=0 leaves one level"):
        BiFPN(top_levels=0).build((8,), (8,))


def batch_of(counts):
    boxes = torch.tensor([[4.0, 6.0, 44.0, 40.0], [30.0, 20.0, 90.0, 60.0]])
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 6:40, 4:44] = masks[1, 20:60, 30:90] = True
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    targets = tuple(Targets(boxes[:n], torch.arange(n), masks[:n], centers[:n]) for n in counts)
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    return Batch(images, ((64, 96), (64, 90)), ((64, 96),) * 2, targets)


@pytest.mark.parametrize(
    "name", ["fcos_mobilenetv2", "retinanet_mobilenetv2", "condinst_mobilenetv2", "boxinst_mobilenetv2"]
)
def test_any_recipe_takes_it(name):
    """By one setting; finite losses and a gradient for every weight with objects in both images, one, none."""
    recipe = override(get_recipe(name), ["model.neck.kind=BiFPN", "model.neck.channels=32", "model.neck.repeats=2"])
    assert isinstance(recipe.model, DetectorConfig)
    assert recipe.model.neck == BiFPN(channels=32, repeats=2)
    tiny = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
    model = replace(recipe.model, backbone=tiny).build(classes=2).train()
    for counts in ((2, 1), (0, 2), (0, 0)):
        model.zero_grad(set_to_none=True)
        losses = model.loss(batch_of(counts))
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert len(model.eval().predict(replace(batch_of((1, 1)), targets=None))) == 2
