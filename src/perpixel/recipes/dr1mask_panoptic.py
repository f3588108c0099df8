"""Panoptic DR1Mask: one layer for stuff and objects (thesis 004, 5.4.3), in place of Panoptic FPN's branch and merge.

As `dr1mask`, with one weight a channel, 64 channels, and inputs padded to multiples of 4. PQ figures labelled "paper" are the
thesis's (tables 5.2 to 5.9; ResNet-50 on COCO val2017, ResNet-101 on test-dev). None of these was trained by us (that takes
days of GPU); `blendmask_panoptic_shapes` is the same problem with two branches.

Data: `data.train` and `data.val` name COCO panoptic files, Cityscapes' splits or `scenes:N:SEED` (docs/panoptic.md).
"""

from dataclasses import replace

from perpixel.engine.recipe import Recipe
from perpixel.models.detector import DetectorConfig
from perpixel.models.dr1mask_panoptic import OF_PANOPTIC, DR1MaskPanoptic
from perpixel.ops.panoptic import Merge
from perpixel.recipes.dr1mask import (
    dr1mask_mobilenetv2,
    dr1mask_r50_1x,
    dr1mask_r50_3x,
    dr1mask_r101_3x,
    dr1mask_r101_dcni3_3x,
    dr1mask_shapes,
)


def dr1mask_panoptic_r50_1x() -> Recipe:
    """DR1Mask panoptic with 32 channels, ResNet-50, 90k steps (tables 5.2, 5.5). Paper: PQ 40.0, things 46.8, stuff 29.9.

    perpixel train dr1mask_panoptic_r50_1x data=coco_panoptic.yaml
    """
    return _panoptic("dr1mask_panoptic_r50_1x", dr1mask_r50_1x(), width=32)


def dr1mask_panoptic_r50_3x() -> Recipe:
    """DR1Mask panoptic, ResNet-50, 270k steps (table 5.9). Paper: PQ 42.9, SQ 79.8, RQ 52.0, things 49.5, stuff 32.9.

    perpixel train dr1mask_panoptic_r50_3x data=coco_panoptic.yaml
    """
    return _panoptic("dr1mask_panoptic_r50_3x", dr1mask_r50_3x())


def dr1mask_panoptic_r101_3x() -> Recipe:
    """DR1Mask panoptic, ResNet-101, 270k steps (table 5.9). Paper: PQ 44.5, SQ 80.7, RQ 53.8, things 51.7, stuff 33.5.

    perpixel train dr1mask_panoptic_r101_3x data=coco_panoptic.yaml
    """
    return _panoptic("dr1mask_panoptic_r101_3x", dr1mask_r101_3x())


def dr1mask_panoptic_r101_dcni3_3x() -> Recipe:
    """DR1Mask panoptic, ResNet-101, every third block deformable, 270k steps (table 5.9, *). Paper: PQ 46.1.

    SQ 81.5, RQ 55.3, things 53.1, stuff 35.5.

    perpixel train dr1mask_panoptic_r101_dcni3_3x data=coco_panoptic.yaml
    """
    return _panoptic("dr1mask_panoptic_r101_dcni3_3x", dr1mask_r101_dcni3_3x())


def dr1mask_panoptic_mobilenetv2() -> Recipe:
    """DR1Mask panoptic on MobileNetV2, for one's own segments.

    perpixel train dr1mask_panoptic_mobilenetv2 data=my.yaml
    """
    return _panoptic("dr1mask_panoptic_mobilenetv2", dr1mask_mobilenetv2())


def dr1mask_panoptic_shapes() -> Recipe:
    """DR1Mask panoptic from random weights on synthetic scenes, in minutes on two processor cores.

    perpixel train dr1mask_panoptic_shapes
    """
    recipe = _panoptic("dr1mask_panoptic_shapes", dr1mask_shapes(), rule=Merge(stuff_area=64))
    return replace(recipe, data=replace(recipe.data, train="scenes:2000:0", val="scenes:100:1"))


def _panoptic(name: str, recipe: Recipe, width: int = 64, rule: Merge | None = None) -> Recipe:
    """A recipe for masks with the unified layer."""
    assert isinstance(recipe.model, DetectorConfig)
    detector = replace(recipe.model, instance=replace(OF_PANOPTIC, width=width))
    model = DR1MaskPanoptic(detector=detector, merge=rule or Merge())
    return replace(recipe, name=name, model=model, data=replace(recipe.data, masks=True, stuff=True))
