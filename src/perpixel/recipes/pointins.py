"""PointINS: the paper's rows on COCO (Qi et al., table 12), and small ones.

All COCO recipes: 16 images a step, Adam with learning rate 0.00005, divided by 10 after 8 and 11 of 12 epochs (section 4.1),
no weight decay, frozen BatchNorm. 12 epochs are 90,000 steps at short side 800. 72 epochs are 540,000 steps, the learning rate
falls at the same fractions; of the augmentation the paper says "multi-scale and random crop" and no more: here short sides
640..800, and crops that keep at least half of each side. AP figures are of masks and the paper's, on COCO test-dev; none of these
was trained by us (that takes days of GPU), what was trained is in docs/methods/pointins.md.
"""

from dataclasses import replace

from perpixel.data.settings import Augment, DataConfig
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.detector import DetectorConfig
from perpixel.models.indicator import Indicator
from perpixel.models.pointins import PointINS
from perpixel.models.retinanet import RetinaNet
from perpixel.models.target_boxes import OverlappingPoints
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.recipes.fcos import R50, R101, X101_32x8d
from perpixel.recipes.retinanet import IMPROVED, NMS_HALF
from perpixel.recipes.shapes import fcos_shapes
from perpixel.recipes.small import SMALL_DATA, SMALL_FCOS, SMALL_TRAINING, small_detector

TRAINING = Training(
    optimizer="adam", learning_rate=5e-5, weight_decay=0.0, steps=90_000, milestones=(8 / 12, 11 / 12), batch_size=16
)
LONG_TRAINING = replace(TRAINING, steps=540_000)
ONE_SCALE = DataConfig(masks=True, augment=Augment(short_sides=(800,)))
AUGMENTED = DataConfig(masks=True, augment=Augment(crop=0.5))
WITH_ANCHORS = Indicator(parts=("stride", "anchor", "center", "sides"))
SMOOTH = RetinaNet(smooth_l1_beta=1 / 9)


def pointins_retinanet_r50_1x() -> Recipe:
    """PointINS on RetinaNet, ResNet-50, 12 epochs. Paper: 32.2 AP on test-dev, 32.5 on val2017, the base of all ablations.

    perpixel train pointins_retinanet_r50_1x data=coco.yaml
    """
    return _retinanet("pointins_retinanet_r50_1x", R50)


def pointins_retinanet_r101_1x() -> Recipe:
    """PointINS on RetinaNet, ResNet-101, 12 epochs. Paper: 33.5 AP.

    perpixel train pointins_retinanet_r101_1x data=coco.yaml
    """
    return _retinanet("pointins_retinanet_r101_1x", R101)


def pointins_retinanet_r50_6x() -> Recipe:
    """PointINS on RetinaNet, ResNet-50, 72 epochs with augmentation. Paper: 36.2 AP.

    perpixel train pointins_retinanet_r50_6x data=coco.yaml
    """
    return _long(_retinanet("pointins_retinanet_r50_6x", R50))


def pointins_retinanet_r101_6x() -> Recipe:
    """PointINS on RetinaNet, ResNet-101, 72 epochs with augmentation. Paper: 37.9 AP.

    perpixel train pointins_retinanet_r101_6x data=coco.yaml
    """
    return _long(_retinanet("pointins_retinanet_r101_6x", R101))


def pointins_fcos_r50_1x() -> Recipe:
    """PointINS on FCOS, ResNet-50, 12 epochs. Paper: 33.4 AP.

    perpixel train pointins_fcos_r50_1x data=coco.yaml
    """
    return _fcos("pointins_fcos_r50_1x", R50)


def pointins_fcos_r101_1x() -> Recipe:
    """PointINS on FCOS, ResNet-101, 12 epochs. Paper: 34.5 AP.

    perpixel train pointins_fcos_r101_1x data=coco.yaml
    """
    return _fcos("pointins_fcos_r101_1x", R101)


def pointins_fcos_r50_6x() -> Recipe:
    """PointINS on FCOS, ResNet-50, 72 epochs with augmentation. Paper: 36.7 AP.

    perpixel train pointins_fcos_r50_6x data=coco.yaml
    """
    return _long(_fcos("pointins_fcos_r50_6x", R50))


def pointins_fcos_r101_6x() -> Recipe:
    """PointINS on FCOS, ResNet-101, 72 epochs with augmentation. Paper: 38.3 AP.

    perpixel train pointins_fcos_r101_6x data=coco.yaml
    """
    return _long(_fcos("pointins_fcos_r101_6x", R101))


def pointins_fcos_x101_deformable_6x() -> Recipe:
    """PointINS on FCOS, ResNeXt-101 with deformable stages (here 32x8d, C3 to C5), 72 epochs. Paper: 42.0 AP.

    perpixel train pointins_fcos_x101_deformable_6x data=coco.yaml
    """
    backbone = replace(X101_32x8d, deformable_stages=(8, 16, 32))
    return _long(_fcos("pointins_fcos_x101_deformable_6x", backbone))


def pointins_mobilenetv2() -> Recipe:
    """PointINS on FCOS and MobileNetV2, for one's own masks.

    perpixel train pointins_mobilenetv2 data=my.yaml
    """
    model = replace(small_detector(SMALL_FCOS), instance=PointINS(width=128))
    return Recipe("pointins_mobilenetv2", model, replace(SMALL_DATA, masks=True), SMALL_TRAINING)


def pointins_retinanet_mobilenetv2() -> Recipe:
    """PointINS on RetinaNet and MobileNetV2, for one's own masks.

    perpixel train pointins_retinanet_mobilenetv2 data=my.yaml
    """
    model = replace(small_detector(IMPROVED), instance=PointINS(width=128, indicator=WITH_ANCHORS))
    return Recipe("pointins_retinanet_mobilenetv2", model, replace(SMALL_DATA, masks=True), SMALL_TRAINING)


def pointins_shapes() -> Recipe:
    """PointINS from random weights on synthetic shapes, in minutes on two processor cores.

    perpixel train pointins_shapes
    """
    recipe = fcos_shapes()
    # 64 channels: K^2 = C_in (3.2.1).
    instance = PointINS(size=8, width=64, points=OverlappingPoints(limit=16))
    data = replace(recipe.data, masks=True)
    model = replace(recipe.model, instance=instance)
    return Recipe("pointins_shapes", model, data, replace(recipe.training, steps=600))


def _retinanet(name: str, backbone: Backbone) -> Recipe:
    instance = PointINS(indicator=WITH_ANCHORS)
    neck = FPN(top_from="c5")
    model = DetectorConfig(backbone=backbone, neck=neck, head=SMOOTH, instance=instance, selection=NMS_HALF)
    return Recipe(name, model, ONE_SCALE, TRAINING)


def _fcos(name: str, backbone: Backbone) -> Recipe:
    return Recipe(name, DetectorConfig(backbone=backbone, instance=PointINS()), ONE_SCALE, TRAINING)


def _long(recipe: Recipe) -> Recipe:
    return replace(recipe, data=AUGMENTED, training=LONG_TRAINING)
