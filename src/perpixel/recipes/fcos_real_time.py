"""FCOS-RT: the thesis's real-time settings (002, 3.3.4, table 3.9), those of AdelaiDet's released models.

Three levels P3 to P5; short side 512 and long side at most 736; 360,000 steps of 16 images at short sides 256..608, learning
rate 0.01 divided by 10 at 300,000 and 340,000; BatchNorm of the backbone trained, over all processes. AP figures are of COCO
val2017 but where test-dev is named; "paper" is the thesis; FPS are its and AdelaiDet's too (one 1080 Ti or Titan Xp). None of
these was trained by us (that takes days of GPU); our times are in docs/speed.md.

    perpixel benchmark fcos_rt_dla34_4x --size 512 736
"""

from dataclasses import replace

from perpixel.data.settings import Augment, DataConfig, TestSize
from perpixel.engine.recipe import Recipe
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.nn.bifpn import BiFPN
from perpixel.nn.fpn import FPN
from perpixel.nn.layers import TowerNorm
from perpixel.ops.assign import LevelRanges
from perpixel.recipes.bifpn import with_bifpn
from perpixel.recipes.fcos import COCO_TRAINING, R50

DLA34 = Backbone("dla34.in1k", norm="train", frozen_stages=0)
TRAINED_R50 = replace(R50, norm="train")
REAL_TIME_DATA = DataConfig(
    augment=Augment(short_sides=tuple(range(256, 609, 32)), max_side=900),
    test=TestSize(short_side=512, max_side=736),
)
REAL_TIME_TRAINING = replace(COCO_TRAINING, steps=360_000, milestones=(30 / 36, 34 / 36), sync_batch_norm=True)
THREE_LEVELS = FCOS(levels=LevelRanges((64.0, 128.0)))
SHARED_TOWERS = replace(THREE_LEVELS, class_convs=0, box_convs=0, shared_convs=4)


def fcos_rt_r50_4x() -> Recipe:
    """FCOS-RT, ResNet-50 (table 3.9). Paper: 40.2 AP, 40.2 on test-dev, 38 FPS.

    perpixel train fcos_rt_r50_4x data=coco.yaml
    """
    return _real_time("fcos_rt_r50_4x", TRAINED_R50)


def fcos_rt_dla34_4x() -> Recipe:
    """FCOS-RT, DLA-34 (table 3.9). Paper: 40.3 AP, 40.3 on test-dev, 46 FPS.

    perpixel train fcos_rt_dla34_4x data=coco.yaml
    """
    return _real_time("fcos_rt_dla34_4x", DLA34)


def fcos_rt_dla34_bifpn_4x() -> Recipe:
    """FCOS-RT, DLA-34 and BiFPN (table 3.9). Paper: 42.1 AP, 42.2 on test-dev, 43 FPS.

    perpixel train fcos_rt_dla34_bifpn_4x data=coco.yaml
    """
    return with_bifpn(_real_time("fcos_rt_dla34_bifpn_4x", DLA34), BiFPN(top_levels=0))


def fcos_rt_dla34_shared_4x() -> Recipe:
    """FCOS-RT, DLA-34, one tower for classes and boxes ("shtw.", table 3.9). Paper: 39.1 AP, 39.2 on test-dev, 52 FPS.

    perpixel train fcos_rt_dla34_shared_4x data=coco.yaml
    """
    return _real_time("fcos_rt_dla34_shared_4x", DLA34, SHARED_TOWERS)


def fcos_rt_r50_bn_head_4x() -> Recipe:
    """FCOS-RT, ResNet-50, BatchNorm in the towers. Published by AdelaiDet: 39.3 AP, 39.7 on test-dev, 40 FPS.

    perpixel train fcos_rt_r50_bn_head_4x data=coco.yaml
    """
    return _real_time("fcos_rt_r50_bn_head_4x", TRAINED_R50, norm="batch")


def fcos_rt_dla34_bn_head_4x() -> Recipe:
    """FCOS-RT, DLA-34, BatchNorm in the towers. Published by AdelaiDet: 39.4 AP, 39.9 on test-dev, 48 FPS.

    perpixel train fcos_rt_dla34_bn_head_4x data=coco.yaml
    """
    return _real_time("fcos_rt_dla34_bn_head_4x", DLA34, norm="batch")


def fcos_rt_dla34_shared_bn_head_4x() -> Recipe:
    """FCOS-RT, DLA-34, one tower with BatchNorm. Published by AdelaiDet: 38.9 AP, 39.1 on test-dev, 52 FPS.

    perpixel train fcos_rt_dla34_shared_bn_head_4x data=coco.yaml
    """
    return _real_time("fcos_rt_dla34_shared_bn_head_4x", DLA34, SHARED_TOWERS, "batch")


def _real_time(name: str, backbone: Backbone, head: FCOS = THREE_LEVELS, norm: TowerNorm = "group") -> Recipe:
    model = DetectorConfig(backbone=backbone, neck=FPN(top_levels=0), head=replace(head, norm=norm))
    return Recipe(name, model, REAL_TIME_DATA, REAL_TIME_TRAINING)
