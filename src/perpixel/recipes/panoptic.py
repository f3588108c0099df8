"""Panoptic segmentation with Panoptic FPN's semantic branch (thesis 004, 4.4.4), on BlendMask and on CondInst.

Each is a recipe for masks with P2 and the semantic branch added: 128 channels, its loss weighted 0.5. The thesis merges objects
of a score from 0.2 on, the models that AdelaiDet published from 0.45 on. PQ figures labelled "paper" are the thesis's (table
4.10, on COCO val2017), those "published" come with AdelaiDet's models. None of these was trained by us (that takes days of GPU);
what was trained is in docs/panoptic.md.

Data: `data.train` and `data.val` name COCO panoptic files, Cityscapes' splits or `scenes:N:SEED` (docs/panoptic.md).
"""

from dataclasses import replace

from perpixel.engine.recipe import Recipe
from perpixel.models.detector import DetectorConfig
from perpixel.models.panoptic import PanopticFPN
from perpixel.ops.panoptic import RELEASED, THESIS, Merge
from perpixel.recipes.blendmask import (
    blendmask_mobilenetv2,
    blendmask_r50_3x,
    blendmask_r101_3x,
    blendmask_r101_dcni3_5x,
    blendmask_shapes,
)
from perpixel.recipes.condinst import condinst_mobilenetv2, condinst_r50_3x, condinst_r101_3x, condinst_shapes


def blendmask_panoptic_r50_3x() -> Recipe:
    """BlendMask panoptic, ResNet-50, 270k steps (table 4.10). Paper: PQ 42.5, SQ 80.1, RQ 51.6, things 49.5, stuff 32.0.

    perpixel train blendmask_panoptic_r50_3x data=coco_panoptic.yaml
    """
    return _panoptic("blendmask_panoptic_r50_3x", blendmask_r50_3x())


def blendmask_panoptic_r101_3x() -> Recipe:
    """BlendMask panoptic, ResNet-101, 270k steps (table 4.10). Paper: PQ 44.3, SQ 80.1, RQ 53.4, things 51.6, stuff 33.2.

    Table 5.9, on test-dev: PQ 44.5, SQ 80.7, RQ 53.8, things 52.1, stuff 33.0.

    perpixel train blendmask_panoptic_r101_3x data=coco_panoptic.yaml
    """
    return _panoptic("blendmask_panoptic_r101_3x", blendmask_r101_3x())


def blendmask_panoptic_r101_dcni3_5x() -> Recipe:
    """BlendMask panoptic, ResNet-101, every third block deformable, 400k steps. Published by AdelaiDet: PQ 46.0.

    perpixel train blendmask_panoptic_r101_dcni3_5x data=coco_panoptic.yaml
    """
    return _panoptic("blendmask_panoptic_r101_dcni3_5x", blendmask_r101_dcni3_5x(), RELEASED)


def blendmask_panoptic_mobilenetv2() -> Recipe:
    """BlendMask panoptic on MobileNetV2, for one's own segments.

    perpixel train blendmask_panoptic_mobilenetv2 data=my.yaml
    """
    return _panoptic("blendmask_panoptic_mobilenetv2", blendmask_mobilenetv2(), width=64)


def blendmask_panoptic_shapes() -> Recipe:
    """BlendMask panoptic from random weights on synthetic scenes, in minutes on two processor cores.

    perpixel train blendmask_panoptic_shapes
    """
    return _on_scenes(_panoptic("blendmask_panoptic_shapes", blendmask_shapes(), replace(THESIS, stuff_area=64), 64))


def condinst_panoptic_r50_3x() -> Recipe:
    """CondInst panoptic, ResNet-50, 270k steps, as table 4.10 has BlendMask; the thesis has no figure.

    perpixel train condinst_panoptic_r50_3x data=coco_panoptic.yaml
    """
    return _panoptic("condinst_panoptic_r50_3x", condinst_r50_3x())


def condinst_panoptic_r101_3x() -> Recipe:
    """CondInst panoptic, ResNet-101, 270k steps, as table 4.10 has BlendMask; the thesis has no figure.

    perpixel train condinst_panoptic_r101_3x data=coco_panoptic.yaml
    """
    return _panoptic("condinst_panoptic_r101_3x", condinst_r101_3x())


def condinst_panoptic_mobilenetv2() -> Recipe:
    """CondInst panoptic on MobileNetV2, for one's own segments.

    perpixel train condinst_panoptic_mobilenetv2 data=my.yaml
    """
    return _panoptic("condinst_panoptic_mobilenetv2", condinst_mobilenetv2(), width=64)


def condinst_panoptic_shapes() -> Recipe:
    """CondInst panoptic from random weights on synthetic scenes, in minutes on two processor cores.

    perpixel train condinst_panoptic_shapes
    """
    return _on_scenes(_panoptic("condinst_panoptic_shapes", condinst_shapes(), replace(THESIS, stuff_area=64), 64))


def _panoptic(name: str, recipe: Recipe, rule: Merge = THESIS, width: int = 128) -> Recipe:
    """A recipe for masks with the map of stride 4 and the semantic branch added."""
    assert isinstance(recipe.model, DetectorConfig)
    stages = recipe.model.backbone.stages
    backbone = replace(recipe.model.backbone, stages=(4, *stages))
    detector = replace(recipe.model, backbone=backbone, box_stride=stages[0])
    model = PanopticFPN(detector=detector, width=width, merge=rule)
    return replace(recipe, name=name, model=model, data=replace(recipe.data, masks=True, stuff=True))


def _on_scenes(recipe: Recipe) -> Recipe:
    return replace(recipe, data=replace(recipe.data, train="scenes:2000:0", val="scenes:100:1"))
