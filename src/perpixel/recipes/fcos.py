"""FCOS: the thesis's settings (002, chapter 3), and small ones for one's own data. The ablations are in `fcos_tables`.

All COCO recipes: 90,000 steps of 16 images unless said, SGD, learning rate 0.01 divided by 10 at 60,000 and 80,000, weight
decay 0.0001 (0 for scales and shifts of norms), frozen BatchNorm, short side 800, long side at most 1333 (real-time models:
`fcos_real_time`). AP figures labelled
"paper" are the thesis's, on COCO val2017; none of these was trained by us (that takes days of GPU), what was trained is in
docs/results.md.
"""

from dataclasses import replace

from perpixel.data.settings import Augment, DataConfig
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.recipes.small import SMALL_DATA, SMALL_FCOS, SMALL_TRAINING, small_detector

R50, R101 = Backbone("resnet50.tv_in1k"), Backbone("resnet101.tv_in1k")
X101_32x8d, X101_64x4d = Backbone("resnext101_32x8d.tv_in1k"), Backbone("resnext101_64x4d.tv_in1k")
ONE_SCALE = DataConfig(augment=Augment(short_sides=(800,)))
COCO_TRAINING = Training(weight_decay_norm=0.0)


def fcos_r50_1x() -> Recipe:
    """FCOS, ResNet-50, 90k steps at short side 800 (table 3.3). Paper: 38.9 AP.

    perpixel train fcos_r50_1x data=coco.yaml
    """
    return Recipe("fcos_r50_1x", DetectorConfig(backbone=R50), ONE_SCALE, COCO_TRAINING)


def fcos_r50_2x() -> Recipe:
    """FCOS, ResNet-50, 180k steps at short sides 640..800 (3.3.3). Published by AdelaiDet: 41.0 AP.

    perpixel train fcos_r50_2x data=coco.yaml
    """
    return _twice("fcos_r50_2x", R50)


def fcos_r101_2x() -> Recipe:
    """FCOS, ResNet-101, 180k steps (table 3.8). Paper: 43.2 AP on test-dev.

    perpixel train fcos_r101_2x data=coco.yaml
    """
    return _twice("fcos_r101_2x", R101)


def fcos_x101_32x8d_2x() -> Recipe:
    """FCOS, ResNeXt-101 32x8d, 180k steps (table 3.8). Paper: 44.1 AP on test-dev.

    perpixel train fcos_x101_32x8d_2x data=coco.yaml
    """
    return _twice("fcos_x101_32x8d_2x", X101_32x8d)


def fcos_x101_64x4d_2x() -> Recipe:
    """FCOS, ResNeXt-101 64x4d, 180k steps (table 3.8). Paper: 44.8 AP on test-dev.

    perpixel train fcos_x101_64x4d_2x data=coco.yaml
    """
    return _twice("fcos_x101_64x4d_2x", X101_64x4d)


def fcos_x101_32x8d_deformable_2x() -> Recipe:
    """FCOS, ResNeXt-101 32x8d, deformable stages and last tower convolutions (table 3.8). Paper: 46.6 AP on test-dev.

    perpixel train fcos_x101_32x8d_deformable_2x data=coco.yaml
    """
    deformable = replace(X101_32x8d, deformable_stages=(16, 32))
    return _twice("fcos_x101_32x8d_deformable_2x", deformable, FCOS(deformable=True))


def fcos_v39_3x() -> Recipe:
    """FCOS, VoVNet-39, 270k steps at short sides 640..800, a config of AdelaiDet without a published figure.

    timm's weights squeeze a stage's last block alone; AdelaiDet's, which squeeze every one, need
    `model.backbone.squeeze_every_block=true model.backbone.weights=vovnet39_ese_detectron2.pth`.

    perpixel train fcos_v39_3x data=coco.yaml
    """
    model = DetectorConfig(backbone=Backbone("ese_vovnet39b.ra_in1k", frozen_stages=0))
    training = replace(COCO_TRAINING, steps=270_000, milestones=(21 / 27, 25 / 27))
    return Recipe("fcos_v39_3x", model, DataConfig(), training)


def fcos_mobilenetv2() -> Recipe:
    """FCOS on MobileNetV2, for one's own data: trains in minutes on a GPU, runs on a CPU.

    perpixel train fcos_mobilenetv2 data=my.yaml
    """
    return Recipe("fcos_mobilenetv2", small_detector(SMALL_FCOS), SMALL_DATA, SMALL_TRAINING)


def _twice(name: str, backbone: Backbone, head: FCOS | None = None) -> Recipe:
    """The long schedule with short sides 640..800 (3.3.3)."""
    model = DetectorConfig(backbone=backbone, head=head or FCOS())
    return Recipe(name, model, DataConfig(), replace(COCO_TRAINING, steps=180_000))
