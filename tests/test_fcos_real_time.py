"""FCOS-RT: towers with batch norms of each level's own, one tower for classes and boxes, and the settings of released models."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from perpixel.models.fcos import FCOS
from perpixel.nn.fold import fold_norms
from perpixel.nn.layers import LevelNorms, Tower
from perpixel.ops.assign import LevelRanges
from perpixel.recipes import get_recipe
from test_convert import hollow, inferred

SHARED = FCOS(class_convs=0, box_convs=0, shared_convs=2, norm="batch", levels=LevelRanges((64.0, 128.0)))


def identity_tower(levels: int) -> tuple[Tower, LevelNorms]:
    """One channel, one convolution that changes nothing; the norms after it."""
    tower = Tower(1, 1, "batch", levels=levels)
    norms = tower[1]
    assert isinstance(tower[0], nn.Conv2d) and isinstance(norms, LevelNorms)
    nn.init.dirac_(tower[0].weight)
    return tower, norms


def test_each_level_has_its_norm():
    """Of 5: level 0, mean 1, variance 4, weight 2, bias 3, gives (5 - 1) / 2 * 2 + 3 = 7; level 1, bias -1 alone, gives 4."""
    tower, norms = identity_tower(2)
    for norm, (mean, variance, weight, bias) in zip(norms, ((1, 4, 2, 3), (0, 1, 1, -1)), strict=True):
        values = {"running_mean": mean, "running_var": variance - 1e-5, "weight": weight, "bias": bias}
        norm.load_state_dict({name: torch.tensor([float(value)]) for name, value in values.items()}, strict=False)
    x = torch.full((1, 1, 2, 2), 5.0)
    tower.eval()
    torch.testing.assert_close(tower(x, 0), torch.full_like(x, 7.0))
    torch.testing.assert_close(tower(x, 1), torch.full_like(x, 4.0))


def test_levels_keep_their_statistics_apart():
    """A step moves each mean by a tenth of the way to its own level's: from 0 to 0.1 x 10 and 0.1 x 200."""
    tower, norms = identity_tower(3)
    for level, value in ((0, 10.0), (2, 200.0)):
        tower.train()(torch.full((2, 1, 4, 4), value), level)
    means = [norm.running_mean.item() for norm in norms]  # pyright: ignore
    assert means == pytest.approx([1, 0, 20])
    assert [int(norm.num_batches_tracked) for norm in norms] == [1, 0, 1]  # pyright: ignore


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_a_shared_tower_is_read_by_classes_and_boxes(norm):
    """Two convolutions of 9 x 32 x 32 + 32 numbers, and the predictors of 5 classes, 4 distances and the centre-ness."""
    head = replace(SHARED, norm=norm).build(32, (8, 16, 32), classes=5).eval()
    pyramid = tuple(torch.rand(2, 32, 24 // s, 32 // s) for s in (1, 2, 4))
    outputs = head(pyramid)
    assert all(torch.equal(a, b) for a, b in zip(outputs.towers, outputs.class_towers, strict=True))
    assert all(
        torch.equal(t, head.shared_tower(x, i)) for i, (t, x) in enumerate(zip(outputs.towers, pyramid, strict=True))
    )
    weights = sum(p.numel() for p in head.parameters() if p.ndim == 4)
    assert weights == 9 * 32 * (2 * 32 + 5 + 4 + 1)


def test_a_norm_of_one_level_is_not_folded_into_what_all_share():
    head = SHARED.build(32, (8, 16, 32), classes=5).eval()
    for part in head.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 2.0)  # pyright: ignore
    pyramid = tuple(torch.rand(1, 32, 24 // s, 32 // s) for s in (1, 2, 4))
    wanted = head(pyramid).logits
    assert fold_norms(_Levels(head), pyramid[0]) == 0
    assert torch.equal(head(pyramid).logits, wanted)


class _Levels(nn.Module):
    """The head on three levels made of one map."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class logits."""
        return self.head((x, x[..., ::2, ::2], x[..., ::4, ::4])).logits


@pytest.mark.parametrize(
    ("recipe", "released"),
    [
        ("fcos_rt_r50_4x", "R_50_4x_syncbn"),
        ("fcos_rt_r50_bn_head_4x", "R_50_4x_syncbn_bn_head"),
        ("fcos_rt_dla34_4x", "DLA_34_4x_syncbn"),
        ("fcos_rt_dla34_bn_head_4x", "DLA_34_4x_syncbn_bn_head"),
        ("fcos_rt_dla34_shared_4x", "DLA_34_4x_syncbn_shared_towers"),
        ("fcos_rt_dla34_shared_bn_head_4x", "DLA_34_4x_syncbn_shared_towers_bn_head"),
    ],
)
def test_recipes_are_the_released_models(recipe: str, released: str):
    """But for the pixels and the strides of other weights on ImageNet."""
    ours, theirs = get_recipe(recipe).model, inferred(hollow(f"adet_FCOS_RT_MS_{released}"))
    backbone = replace(ours.backbone, name=ours.backbone.name.partition(".")[0], weights=None)
    backbone = replace(backbone, stride_in_1x1=theirs.backbone.stride_in_1x1)
    assert replace(ours, pixels=theirs.pixels, backbone=backbone) == theirs


def test_real_time_sizes_and_steps():
    """Section 3.3.4: short sides 256 to 608 by 32, tested at 512 and at most 736, divisions at 300,000 and 340,000 of 360,000."""
    for name in ("fcos_rt_dla34_bifpn_4x", "blendmask_rt_r50_4x", "blendmask_dla34_4x"):
        recipe = get_recipe(name)
        augment, test, training = recipe.data.augment, recipe.data.test, recipe.training
        assert augment.short_sides[:2] == (256, 288) and augment.short_sides[-1] == 608
        assert (test.short_side, test.max_side) == (512, 736)
        assert [round(m * training.steps) for m in training.milestones] == [300_000, 340_000]
        assert training.sync_batch_norm and recipe.model.box_strides() == (8, 16, 32)
