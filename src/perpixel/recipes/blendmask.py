"""BlendMask: the thesis's settings (004, chapter 4), the released models', and small ones. The ablations: `blendmask_tables`.

All COCO recipes: 16 images a step, SGD, learning rate 0.01, weight decay 0.0001 (0 for scales and shifts of norms), frozen
BatchNorm in the backbone unless said, statistics of the bottom module's BatchNorm over all processes. AP figures are of masks;
those labelled "paper" are the thesis's, the others were published with AdelaiDet's models, on COCO val2017. None of these was
trained by us (that takes days of GPU), what was trained is in docs/methods/blendmask.md.

The chapter's first experiments have the decoder of DeepLabV3+ as bottom module; the models marked * in its tables, which were
released, sum P3 to P5 (Proto-FPN). The row of table 4.8 with 12 epochs is row "256 channels" of table blendmask_4.7.
"""

from dataclasses import replace

from perpixel.data.settings import Augment, DataConfig, TestSize
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.blendmask import BlendMask
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.nn.bases import DeepLabV3Plus, ProtoFPN
from perpixel.nn.fpn import FPN
from perpixel.ops.assign import LevelRanges
from perpixel.recipes.fcos import COCO_TRAINING, R50, R101
from perpixel.recipes.fcos_real_time import DLA34, REAL_TIME_DATA, REAL_TIME_TRAINING, THREE_LEVELS
from perpixel.recipes.shapes import fcos_shapes
from perpixel.recipes.small import SMALL_DATA, SMALL_FCOS, SMALL_TRAINING, small_detector

BY_PRODUCT = Selection(threshold_on="product")
WITHOUT_SCALES = FCOS(level_scales=False)
MASKS = DataConfig(masks=True)
TRAINING = replace(COCO_TRAINING, sync_batch_norm=True)
LONG_TRAINING = replace(TRAINING, steps=270_000, milestones=(21 / 27, 25 / 27))
LONGEST_TRAINING = replace(TRAINING, steps=400_000, milestones=(28 / 40, 36 / 40))
THESIS_TRAINING = replace(
    TRAINING, steps=270_000, milestones=(18 / 27, 24 / 27), warmup="constant", warmup_factor=1 / 3
)
REAL_TIME_HEAD = replace(THREE_LEVELS, class_convs=0, box_convs=0, shared_convs=3, level_scales=False)
DEFORMABLE = replace(R101, deformable_stages=(8, 16, 32), deformable_interval=3)
WIDE_DECODER = BlendMask(bottom=DeepLabV3Plus(width=256))


def blendmask_r50_1x() -> Recipe:
    """BlendMask, ResNet-50, 90k steps. Published by AdelaiDet: 35.8 AP.

    perpixel train blendmask_r50_1x data=coco.yaml
    """
    return _recipe("blendmask_r50_1x", R50, TRAINING)


def blendmask_r50_3x() -> Recipe:
    """BlendMask, ResNet-50, 270k steps (table 4.8, *). Paper: 37.8 AP on test-dev. Published by AdelaiDet: 37.8.

    perpixel train blendmask_r50_3x data=coco.yaml
    """
    return _recipe("blendmask_r50_3x", R50, LONG_TRAINING)


def blendmask_r101_3x() -> Recipe:
    """BlendMask, ResNet-101, 270k steps (table 4.8, *). Paper: 39.6 AP on test-dev. Published by AdelaiDet: 39.5.

    perpixel train blendmask_r101_3x data=coco.yaml
    """
    return _recipe("blendmask_r101_3x", R101, LONG_TRAINING)


def blendmask_r101_dcni3_5x() -> Recipe:
    """BlendMask, ResNet-101, every third block deformable, 400k steps (table 4.8). Paper: 41.3 AP on test-dev.

    Table 4.11: 41.1 AP on COCO val2017, 44.1 AP* with LVIS's masks for truth (`perpixel evaluate`, docs/methods/blendmask.md).

    perpixel train blendmask_r101_dcni3_5x data=coco.yaml
    """
    return _cropped(_recipe("blendmask_r101_dcni3_5x", DEFORMABLE, LONGEST_TRAINING), range(640, 865, 32), 1440)


def blendmask_r50_3x_thesis() -> Recipe:
    """BlendMask with DeepLabV3+'s decoder on P3 and P5, ResNet-50, 270k steps (table 4.8). Paper: 37.0 AP on test-dev.

    perpixel train blendmask_r50_3x_thesis data=coco.yaml
    """
    return _recipe("blendmask_r50_3x_thesis", R50, THESIS_TRAINING, WIDE_DECODER)


def blendmask_r101_3x_thesis() -> Recipe:
    """BlendMask with DeepLabV3+'s decoder on P3 and P5, ResNet-101, 270k steps (table 4.8). Paper: 38.4 AP on test-dev.

    perpixel train blendmask_r101_3x_thesis data=coco.yaml
    """
    return _recipe("blendmask_r101_3x_thesis", R101, THESIS_TRAINING, WIDE_DECODER)


def blendmask_r50_1x_56_4_7() -> Recipe:
    """What tables 4.1 to 4.7 change: R = 56, K = 4, M = 7, C3 and C5, no semantic loss, 90k steps at 800. Paper: 33.1 AP.

    perpixel train blendmask_r50_1x_56_4_7 data=coco.yaml
    """
    instance = BlendMask(DeepLabV3Plus(reads="backbone"), attention=7, enlarging="nearest", semantic_weight=0.0)
    training = replace(TRAINING, warmup="constant", warmup_factor=1 / 3)
    recipe = _recipe("blendmask_r50_1x_56_4_7", R50, training, instance)
    return replace(recipe, data=replace(MASKS, augment=Augment(short_sides=(800,))))


def blendmask_550_r50_3x() -> Recipe:
    """BlendMask-RT as the text of 4.4.2 has it: short side 550, ResNet-50, 270k steps. Published by AdelaiDet: 34.5 AP.

    perpixel train blendmask_550_r50_3x data=coco.yaml
    """
    return _at_550("blendmask_550_r50_3x", R50)


def blendmask_550_r101_3x() -> Recipe:
    """BlendMask-RT, short side 550, ResNet-101, 270k steps (table 4.9). Paper: 36.8 AP on val2017.

    perpixel train blendmask_550_r101_3x data=coco.yaml
    """
    return _at_550("blendmask_550_r101_3x", R101)


def blendmask_rt_r50_4x() -> Recipe:
    """BlendMask-RT, short side 512, three levels, ResNet-50, 360k steps (table 4.9). Paper: 35.1 AP on val2017.

    perpixel train blendmask_rt_r50_4x data=coco.yaml
    """
    return _real_time("blendmask_rt_r50_4x", REAL_TIME_HEAD)


def blendmask_rt_r50_bn_head_4x() -> Recipe:
    """BlendMask-RT, BatchNorm in the tower, ResNet-50, 360k steps. Published by AdelaiDet: 35.1 AP.

    perpixel train blendmask_rt_r50_bn_head_4x data=coco.yaml
    """
    return _real_time("blendmask_rt_r50_bn_head_4x", replace(REAL_TIME_HEAD, norm="batch"))


def blendmask_dla34_4x() -> Recipe:
    """BlendMask-RT, DLA-34, towers of four convolutions, 360k steps. Published by AdelaiDet: 36.3 AP.

    perpixel train blendmask_dla34_4x data=coco.yaml
    """
    head = replace(WITHOUT_SCALES, levels=THREE_LEVELS.levels)
    model = DetectorConfig(
        backbone=DLA34, neck=FPN(top_levels=0), head=head, instance=BlendMask(), selection=BY_PRODUCT
    )
    return Recipe("blendmask_dla34_4x", model, replace(REAL_TIME_DATA, masks=True), REAL_TIME_TRAINING)


def blendmask_r50_1x_person() -> Recipe:
    """BlendMask for people: data with that one class, ResNet-50, 90k steps.

    AdelaiDet's page gives 66.7 for masks and 70.6 for boxes, without the schedule.

    perpixel train blendmask_r50_1x_person data=people.yaml
    """
    return _recipe("blendmask_r50_1x_person", R50, TRAINING)


def blendmask_mobilenetv2() -> Recipe:
    """BlendMask on MobileNetV2, for one's own masks.

    perpixel train blendmask_mobilenetv2 data=my.yaml
    """
    model = replace(
        small_detector(SMALL_FCOS),
        instance=BlendMask(ProtoFPN(width=64), semantic_width=64),
        selection=BY_PRODUCT,
    )
    return Recipe("blendmask_mobilenetv2", model, replace(SMALL_DATA, masks=True), SMALL_TRAINING)


def blendmask_shapes() -> Recipe:
    """BlendMask from random weights on synthetic shapes, in minutes on two processor cores.

    perpixel train blendmask_shapes
    """
    recipe = fcos_shapes()
    instance = BlendMask(ProtoFPN(width=64, convs=2), semantic_width=64)
    model = replace(recipe.model, instance=instance, selection=BY_PRODUCT)
    return Recipe("blendmask_shapes", model, replace(recipe.data, masks=True), replace(recipe.training, steps=600))


def _recipe(name: str, backbone: Backbone, training: Training, instance: BlendMask | None = None) -> Recipe:
    model = DetectorConfig(
        backbone=backbone, head=WITHOUT_SCALES, instance=instance or BlendMask(), selection=BY_PRODUCT
    )
    return Recipe(name, model, MASKS, training)


def _cropped(recipe: Recipe, short_sides: range, max_side: int) -> Recipe:
    """Larger images of which random crops keep at least nine tenths of each side."""
    augment = Augment(short_sides=tuple(short_sides), max_side=max_side, crop=0.9)
    return replace(recipe, data=replace(recipe.data, augment=augment))


def _at_550(name: str, backbone: Backbone) -> Recipe:
    """P7 left out, both towers one of three convolutions, one convolution less in the bottom module; short sides 440..550."""
    head = replace(REAL_TIME_HEAD, levels=LevelRanges((64.0, 128.0, 256.0)))
    data = DataConfig(
        masks=True,
        augment=Augment(short_sides=tuple(range(440, 551, 22)), max_side=916),
        test=TestSize(short_side=550, max_side=916),
    )
    return Recipe(name, _real_time_model(backbone, FPN(top_levels=1), head), data, LONG_TRAINING)


def _real_time(name: str, head: FCOS) -> Recipe:
    """P3 to P5 alone, one tower of three convolutions, one convolution less in the bottom module; FCOS-RT's sizes and steps."""
    model = _real_time_model(replace(R50, norm="train", frozen_stages=0), FPN(top_levels=0), head)
    return Recipe(name, model, replace(REAL_TIME_DATA, masks=True), REAL_TIME_TRAINING)


def _real_time_model(backbone: Backbone, neck: FPN, head: FCOS) -> DetectorConfig:
    return DetectorConfig(
        backbone=backbone, neck=neck, head=head, instance=BlendMask(ProtoFPN(convs=2)), selection=BY_PRODUCT
    )
