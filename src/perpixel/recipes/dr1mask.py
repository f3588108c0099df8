"""DR1Mask for instances: the thesis's settings (004, chapter 5) and small ones. The ablations: `dr1mask_tables`.

All COCO recipes: BlendMask's settings (5.5.1), 16 images a step, SGD, learning rate 0.01, short sides 640 to 800; three times the
steps with drops at 180k and 240k. AP figures labelled "paper" are the thesis's, of masks. There is no other public
implementation and no published model. None of these was trained by us (that takes days of GPU).
"""

from dataclasses import replace

from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.detector import DetectorConfig
from perpixel.models.dr1mask import DR1Mask
from perpixel.nn.backbones import Backbone
from perpixel.recipes.blendmask import BY_PRODUCT, DEFORMABLE, MASKS, THESIS_TRAINING, WITHOUT_SCALES
from perpixel.recipes.fcos import R50, R101
from perpixel.recipes.shapes import fcos_shapes
from perpixel.recipes.small import SMALL_DATA, SMALL_FCOS, SMALL_TRAINING, small_detector

SHORT_TRAINING = replace(THESIS_TRAINING, steps=90_000, milestones=(6 / 9, 8 / 9))


def dr1mask_r50_1x() -> Recipe:
    """DR1Mask, ResNet-50, 90k steps (table 5.4, "Factored"). Paper: 36.3 AP on val2017.

    perpixel train dr1mask_r50_1x data=coco.yaml
    """
    return _recipe("dr1mask_r50_1x", R50, SHORT_TRAINING)


def dr1mask_r50_3x() -> Recipe:
    """DR1Mask, ResNet-50, 270k steps (table 5.8). Paper: 38.3 AP on test-dev.

    perpixel train dr1mask_r50_3x data=coco.yaml
    """
    return _recipe("dr1mask_r50_3x", R50, THESIS_TRAINING)


def dr1mask_r101_3x() -> Recipe:
    """DR1Mask, ResNet-101, 270k steps (table 5.8). Paper: 39.8 AP on test-dev.

    perpixel train dr1mask_r101_3x data=coco.yaml
    """
    return _recipe("dr1mask_r101_3x", R101, THESIS_TRAINING)


def dr1mask_r101_dcni3_3x() -> Recipe:
    """DR1Mask, ResNet-101, every third block deformable, 270k steps (table 5.8, *). Paper: 41.2 AP on test-dev.

    perpixel train dr1mask_r101_dcni3_3x data=coco.yaml
    """
    return _recipe("dr1mask_r101_dcni3_3x", DEFORMABLE, THESIS_TRAINING)


def dr1mask_mobilenetv2() -> Recipe:
    """DR1Mask on MobileNetV2, for one's own masks.

    perpixel train dr1mask_mobilenetv2 data=my.yaml
    """
    model = replace(small_detector(SMALL_FCOS), instance=DR1Mask(semantic_width=64), selection=BY_PRODUCT)
    return Recipe("dr1mask_mobilenetv2", model, replace(SMALL_DATA, masks=True), SMALL_TRAINING)


def dr1mask_shapes() -> Recipe:
    """DR1Mask from random weights on synthetic shapes, in minutes on two processor cores.

    perpixel train dr1mask_shapes
    """
    recipe = fcos_shapes()
    model = replace(recipe.model, instance=DR1Mask(semantic_width=64), selection=BY_PRODUCT)
    return Recipe("dr1mask_shapes", model, replace(recipe.data, masks=True), replace(recipe.training, steps=600))


def _recipe(name: str, backbone: Backbone, training: Training) -> Recipe:
    model = DetectorConfig(backbone=backbone, head=WITHOUT_SCALES, instance=DR1Mask(), selection=BY_PRODUCT)
    return Recipe(name, model, MASKS, training)
