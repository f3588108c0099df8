"""BoxInst: CondInst's settings with the loss of thesis 002, chapter 6: masks from data that hold boxes only.

All COCO recipes: as CondInst's, 90,000 steps of 16 images unless said, short sides 640..800. AP figures are of masks; those
labelled "paper" are the thesis's, on COCO val2017 unless said. None of these was trained by us (that takes days of GPU), what was
trained is in docs/results.md.

The released models take tau = 0.3; the thesis's tables of ablations (`boxinst_tables`) are around tau = 0.1, which
`boxinst_r50_1x_thesis` has.
"""

from dataclasses import replace

from perpixel.data.settings import DataConfig
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.boxinst import BoxInst
from perpixel.models.candidates import BestPositives
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.recipes.bifpn import with_bifpn
from perpixel.recipes.condinst import BY_PRODUCT, LONG_TRAINING
from perpixel.recipes.fcos import COCO_TRAINING, ONE_SCALE, R50, R101
from perpixel.recipes.shapes import fcos_shapes
from perpixel.recipes.small import SMALL_DATA, SMALL_FCOS, SMALL_TRAINING, small_detector

THESIS = BoxInst(tau=0.1)
VOC_TRAINING = replace(COCO_TRAINING, steps=20_000, batch_size=8, milestones=(0.75,))


def boxinst_r50_1x() -> Recipe:
    """BoxInst, ResNet-50, 90k steps, as released. Published by AdelaiDet: 30.7 AP.

    perpixel train boxinst_r50_1x data=coco.yaml
    """
    return _recipe("boxinst_r50_1x", R50)


def boxinst_r50_3x() -> Recipe:
    """BoxInst, ResNet-50, 270k steps (table 6.5). Paper: 32.1 AP on test-dev.

    perpixel train boxinst_r50_3x data=coco.yaml
    """
    return _recipe("boxinst_r50_3x", R50, training=LONG_TRAINING)


def boxinst_r101_1x_one_scale() -> Recipe:
    """BoxInst, ResNet-101, short side 800 only (table 6.5). Paper: 31.6 AP.

    perpixel train boxinst_r101_1x_one_scale data=coco.yaml
    """
    return replace(_recipe("boxinst_r101_1x_one_scale", R101), data=ONE_SCALE)


def boxinst_r101_1x() -> Recipe:
    """BoxInst, ResNet-101, 90k steps (table 6.5). Paper: 32.5 AP on test-dev.

    perpixel train boxinst_r101_1x data=coco.yaml
    """
    return _recipe("boxinst_r101_1x", R101)


def boxinst_r101_3x() -> Recipe:
    """BoxInst, ResNet-101, 270k steps (table 6.5). Paper: 33.2 AP on test-dev.

    perpixel train boxinst_r101_3x data=coco.yaml
    """
    return _recipe("boxinst_r101_3x", R101, training=LONG_TRAINING)


def boxinst_r50_bifpn_1x() -> Recipe:
    """BoxInst, ResNet-50, BiFPN, 90k steps. No figure is published.

    perpixel train boxinst_r50_bifpn_1x data=coco.yaml
    """
    return with_bifpn(_recipe("boxinst_r50_bifpn_1x", R50))


def boxinst_r101_bifpn_3x() -> Recipe:
    """BoxInst, ResNet-101, BiFPN, 270k steps (table 6.5). Paper: 33.9 AP on test-dev.

    perpixel train boxinst_r101_bifpn_3x data=coco.yaml
    """
    return with_bifpn(_recipe("boxinst_r101_bifpn_3x", R101, training=LONG_TRAINING))


def boxinst_r50_1x_thesis() -> Recipe:
    """BoxInst with tau = 0.1 (tables 6.2 to 6.4). Paper: 30.7 AP.

    perpixel train boxinst_r50_1x_thesis data=coco.yaml
    """
    return _recipe("boxinst_r50_1x_thesis", R50, THESIS)


def boxinst_r50_voc() -> Recipe:
    """BoxInst on Pascal VOC 2012, ResNet-50, 20k steps of 8 images, flips only (table 6.6). Paper: 32.2 AP on VOC.

    perpixel train boxinst_r50_voc data=voc.yaml
    """
    return _voc("boxinst_r50_voc", R50)


def boxinst_r101_voc() -> Recipe:
    """BoxInst on Pascal VOC 2012, ResNet-101, 20k steps of 8 images, flips only (table 6.6). Paper: 34.4 AP on VOC.

    perpixel train boxinst_r101_voc data=voc.yaml
    """
    return _voc("boxinst_r101_voc", R101)


def boxinst_r50_characters() -> Recipe:
    """BoxInst on characters of ICDAR 2019 ReCTS (6.3.7), all settings as on COCO. Paper: pictures (figure 6.4), no AP.

    perpixel train boxinst_r50_characters data=rects.yaml
    """
    return _recipe("boxinst_r50_characters", R50, THESIS)


def boxinst_mobilenetv2() -> Recipe:
    """BoxInst on MobileNetV2: masks from one's own boxes.

    perpixel train boxinst_mobilenetv2 data=my.yaml
    """
    instance = BoxInst(mask_width=64, warmup_steps=1000, bottom_pixels=0)
    model = replace(small_detector(SMALL_FCOS), instance=instance, selection=BY_PRODUCT)
    return Recipe("boxinst_mobilenetv2", model, SMALL_DATA, SMALL_TRAINING)


def boxinst_shapes() -> Recipe:
    """BoxInst from random weights on synthetic shapes, whose masks it does not see, in minutes on two processor cores.

    perpixel train boxinst_shapes
    """
    recipe = fcos_shapes()
    policy = BestPositives(per_image=32)
    instance = BoxInst(mask_convs=2, mask_width=64, policy=policy, warmup_steps=200, bottom_pixels=0)
    model = replace(recipe.model, instance=instance, selection=BY_PRODUCT)
    return Recipe("boxinst_shapes", model, recipe.data, replace(recipe.training, steps=600))


def _recipe(
    name: str, backbone: Backbone, instance: BoxInst | None = None, training: Training = COCO_TRAINING
) -> Recipe:
    model = DetectorConfig(backbone=backbone, head=FCOS(), instance=instance or BoxInst(), selection=BY_PRODUCT)
    return Recipe(name, model, DataConfig(), training)


def _voc(name: str, backbone: Backbone) -> Recipe:
    return replace(_recipe(name, backbone, THESIS, VOC_TRAINING), data=ONE_SCALE)
