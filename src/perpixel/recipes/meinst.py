"""MEInst: the paper's rows on COCO (Zhang et al. 2020, tables 5, 7 and 8), the released models', and small ones.

All COCO recipes: 16 images a step, SGD, learning rate 0.01 divided by 10 after 60,000 and 80,000 of 90,000 steps, or after
180,000 and 240,000 of 270,000; weight decay 0.0001 (0 for scales and shifts of norms), frozen BatchNorm in the backbone; the
first 500 steps at a third of the learning rate; short side 800, of the long schedules 640..800. The codes are fitted to the
training data when the training starts. AP figures are of masks; those labelled "paper" are the paper's, on COCO test-dev unless
said. None of these was trained by us (that takes days of GPU), what was trained is in docs/methods/meinst.md.

"Deformable" is the paper's "DCN": the last convolution of every tower samples at learned offsets. The ablations: `meinst_tables`.
"""

from dataclasses import replace

from perpixel.data.settings import Augment, DataConfig, TestSize
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.meinst import MEInst
from perpixel.nn.backbones import Backbone
from perpixel.recipes.fcos import R50, R101, X101_32x8d
from perpixel.recipes.shapes import fcos_shapes
from perpixel.recipes.small import SMALL_DATA, SMALL_FCOS, SMALL_TRAINING, small_detector

TRAINING = Training(weight_decay_norm=0.0, warmup="constant", warmup_steps=500, warmup_factor=1 / 3)
LONG_TRAINING = replace(TRAINING, steps=270_000, milestones=(18 / 27, 24 / 27))
ONE_SCALE = DataConfig(masks=True, augment=Augment(short_sides=(800,)))
SCALES = DataConfig(masks=True)
# Of the small model only the short sides are published; the long ones keep 800 : 1333.
SMALL_SCALES = DataConfig(
    masks=True,
    augment=Augment(short_sides=(384, 416, 448, 480, 512, 544), max_side=907),
    test=TestSize(short_side=512, max_side=853),
)


def meinst_r50_1x_none() -> Recipe:
    """MEInst, ResNet-50, no deformable convolution (tables 5, 7). Paper: 30.3 AP on val2017; AdelaiDet's file: 30.7.

    perpixel train meinst_r50_1x_none data=coco.yaml
    """
    return _plain("meinst_r50_1x_none", R50)


def meinst_r50_1x() -> Recipe:
    """MEInst, ResNet-50, the base of tables 2 to 6. Paper: 31.8 AP on val2017; AdelaiDet's file: 31.7.

    perpixel train meinst_r50_1x data=coco.yaml
    """
    return _deformable("meinst_r50_1x", R50)


def meinst_r50_3x() -> Recipe:
    """MEInst, ResNet-50, 270k steps. Published by AdelaiDet: 34.5 AP on val2017.

    perpixel train meinst_r50_3x data=coco.yaml
    """
    return _long(_deformable("meinst_r50_3x", R50))


def meinst_r50_3x_512() -> Recipe:
    """MEInst, ResNet-50, 270k steps at short sides 384..544. Published by AdelaiDet: 32.2 AP on val2017.

    perpixel train meinst_r50_3x_512 data=coco.yaml
    """
    return replace(_long(_deformable("meinst_r50_3x_512", R50)), data=SMALL_SCALES)


def meinst_r101_1x() -> Recipe:
    """MEInst, ResNet-101 (table 8). Paper: 33.0 AP.

    perpixel train meinst_r101_1x data=coco.yaml
    """
    return _plain("meinst_r101_1x", R101)


def meinst_x101_1x() -> Recipe:
    """MEInst, ResNeXt-101 32x8d (table 8). Paper: 35.5 AP.

    perpixel train meinst_x101_1x data=coco.yaml
    """
    return _plain("meinst_x101_1x", X101_32x8d)


def meinst_r101_deformable_1x() -> Recipe:
    """MEInst, ResNet-101, deformable (table 8). Paper: 34.9 AP.

    perpixel train meinst_r101_deformable_1x data=coco.yaml
    """
    return _deformable("meinst_r101_deformable_1x", R101)


def meinst_x101_deformable_1x() -> Recipe:
    """MEInst, ResNeXt-101 32x8d, deformable (table 8). Paper: 36.8 AP.

    perpixel train meinst_x101_deformable_1x data=coco.yaml
    """
    return _deformable("meinst_x101_deformable_1x", X101_32x8d)


def meinst_r101_3x() -> Recipe:
    """MEInst, ResNet-101, 36 epochs (table 8). Paper: 33.9 AP.

    perpixel train meinst_r101_3x data=coco.yaml
    """
    return _long(_plain("meinst_r101_3x", R101))


def meinst_x101_3x() -> Recipe:
    """MEInst, ResNeXt-101 32x8d, 36 epochs (table 8). Paper: 36.9 AP.

    perpixel train meinst_x101_3x data=coco.yaml
    """
    return _long(_plain("meinst_x101_3x", X101_32x8d))


def meinst_x101_deformable_3x() -> Recipe:
    """MEInst, ResNeXt-101 32x8d, deformable, 36 epochs (table 8). Paper: 38.2 AP.

    perpixel train meinst_x101_deformable_3x data=coco.yaml
    """
    return _long(_deformable("meinst_x101_deformable_3x", X101_32x8d))


def meinst_mobilenetv2() -> Recipe:
    """MEInst on MobileNetV2, for one's own masks: the codes are fitted to them.

    perpixel train meinst_mobilenetv2 data=my.yaml
    """
    model = replace(small_detector(SMALL_FCOS), instance=MEInst())
    return Recipe("meinst_mobilenetv2", model, replace(SMALL_DATA, masks=True), SMALL_TRAINING)


def meinst_shapes() -> Recipe:
    """MEInst from random weights on synthetic shapes, in minutes on two processor cores.

    perpixel train meinst_shapes
    """
    recipe = fcos_shapes()
    model = replace(recipe.model, instance=MEInst(convs=2))
    data = replace(recipe.data, masks=True)
    return Recipe("meinst_shapes", model, data, replace(recipe.training, steps=600))


def _plain(name: str, backbone: Backbone) -> Recipe:
    return Recipe(name, DetectorConfig(backbone=backbone, instance=MEInst()), ONE_SCALE, TRAINING)


def _deformable(name: str, backbone: Backbone) -> Recipe:
    model = DetectorConfig(backbone=backbone, head=FCOS(deformable="v1"), instance=MEInst(last="deformable"))
    return Recipe(name, model, ONE_SCALE, TRAINING)


def _long(recipe: Recipe) -> Recipe:
    return replace(recipe, data=SCALES, training=LONG_TRAINING)
