"""FCOS: the thesis's settings (002, chapter 3), its ablations, and small ones for one's own data.

All COCO recipes: 90,000 steps of 16 images unless said, SGD, learning rate 0.01 divided by 10 at 60,000 and 80,000, weight
decay 0.0001 (0 for scales and shifts of norms), frozen BatchNorm, short side 800, long side at most 1333. AP figures labelled
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
from perpixel.nn.fpn import FPN
from perpixel.ops.assign import LevelRanges
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


def fcos_r50_1x_iou() -> Recipe:
    """FCOS with a branch for the box's IoU in place of centre-ness. Published by AdelaiDet: 39.4 AP.

    perpixel train fcos_r50_1x_iou data=coco.yaml
    """
    return _ablation("iou", FCOS(quality="iou", box_weight="none"))


def fcos_r50_1x_no_centerness() -> Recipe:
    """Table 3.4: without centre-ness. Paper: 38.0 AP.

    perpixel train fcos_r50_1x_no_centerness data=coco.yaml
    """
    return _ablation("no_centerness", FCOS(quality="none", box_weight="none"))


def fcos_r50_1x_centerness_from_box() -> Recipe:
    """Table 3.4, dagger: centre-ness computed from the predicted distances. Paper: 37.5 AP.

    perpixel train fcos_r50_1x_centerness_from_box data=coco.yaml
    """
    return _ablation("centerness_from_box", FCOS(quality="from_box", box_weight="none"))


def fcos_r50_1x_centerness_l1() -> Recipe:
    """Table 3.4: L1 in place of cross entropy for centre-ness. Paper: 38.9 AP.

    perpixel train fcos_r50_1x_centerness_l1 data=coco.yaml
    """
    return _ablation("centerness_l1", FCOS(quality_loss="l1"))


def fcos_r50_1x_no_group_norm() -> Recipe:
    """Table 3.5: towers without GroupNorm. Paper: 37.9 AP.

    perpixel train fcos_r50_1x_no_group_norm data=coco.yaml
    """
    return _ablation("no_group_norm", FCOS(norm="none"))


def fcos_r50_1x_iou_loss() -> Recipe:
    """Table 3.5: -log IoU in place of GIoU. Paper: 38.6 AP.

    perpixel train fcos_r50_1x_iou_loss data=coco.yaml
    """
    return _ablation("iou_loss", FCOS(box_loss="iou"))


def fcos_r50_1x_c5() -> Recipe:
    """Table 3.5: P6 from C5 in place of P5. Paper: 38.5 AP.

    perpixel train fcos_r50_1x_c5 data=coco.yaml
    """
    return Recipe("fcos_r50_1x_c5", DetectorConfig(backbone=R50, neck=FPN(top_from="c5")), ONE_SCALE, COCO_TRAINING)


def fcos_r50_1x_radius_1() -> Recipe:
    """Table 3.6: sampling radius 1.0. Paper: 38.5 AP.

    perpixel train fcos_r50_1x_radius_1 data=coco.yaml
    """
    return _ablation("radius_1", FCOS(radius=1.0))


def fcos_r50_1x_radius_2() -> Recipe:
    """Table 3.6: sampling radius 2.0. Paper: 38.8 AP.

    perpixel train fcos_r50_1x_radius_2 data=coco.yaml
    """
    return _ablation("radius_2", FCOS(radius=2.0))


def fcos_r50_1x_whole_box() -> Recipe:
    """Table 3.2: no centre sampling, every location inside a box is positive (the conference version).

    perpixel train fcos_r50_1x_whole_box data=coco.yaml
    """
    return _ablation("whole_box", FCOS(radius=None))


def fcos_r50_1x_levels_fpn() -> Recipe:
    """Table 3.7: objects to levels by FPN's formula. Paper: 37.7 AP.

    perpixel train fcos_r50_1x_levels_fpn data=coco.yaml
    """
    return _ablation("levels_fpn", FCOS(levels=LevelRanges(rule="fpn")))


def fcos_r50_1x_levels_area() -> Recipe:
    """Table 3.7: objects to levels by sqrt(h w) / 2. Paper: 37.6 AP.

    perpixel train fcos_r50_1x_levels_area data=coco.yaml
    """
    return _ablation("levels_area", FCOS(levels=LevelRanges(rule="area")))


def fcos_r50_1x_levels_side() -> Recipe:
    """Table 3.7: objects to levels by max(h, w) / 2. Paper: 38.1 AP.

    perpixel train fcos_r50_1x_levels_side data=coco.yaml
    """
    return _ablation("levels_side", FCOS(levels=LevelRanges(rule="side")))


def fcos_mobilenetv2() -> Recipe:
    """FCOS on MobileNetV2, for one's own data: trains in minutes on a GPU, runs on a CPU.

    perpixel train fcos_mobilenetv2 data=my.yaml
    """
    return Recipe("fcos_mobilenetv2", small_detector(SMALL_FCOS), SMALL_DATA, SMALL_TRAINING)


def _twice(name: str, backbone: Backbone, head: FCOS | None = None) -> Recipe:
    """The long schedule with short sides 640..800 (3.3.3)."""
    model = DetectorConfig(backbone=backbone, head=head or FCOS())
    return Recipe(name, model, DataConfig(), replace(COCO_TRAINING, steps=180_000))


def _ablation(name: str, head: FCOS) -> Recipe:
    return Recipe(f"fcos_r50_1x_{name}", DetectorConfig(backbone=R50, head=head), ONE_SCALE, COCO_TRAINING)
