"""SmalMask and SmalMask2: the thesis's settings (004, chapter 3), and small ones for one's own masks.

The ablations are in `smalmask_tables`. All COCO recipes: SGD, 16 images a step, learning rate 0.01, constant warm-up of 1000
steps (by a third, which the thesis does not give), all else as FCOS's (3.5). 1x is 90,000 steps, the learning rate divided by 10
at 60,000 and 80,000; 3x is 270,000, at 180,000 and 240,000. SmalMask trains at short side 800 alone, SmalMask2 at 640..800,
SmalMask2-RT at 440..550. AP figures are of masks and the thesis's; none of these was trained by us (that takes days of GPU), what
was trained is in docs/methods/smalmask.md.
"""

from dataclasses import replace

from perpixel.data.settings import Augment, DataConfig, TestSize
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.heads import InstanceHeadConfig
from perpixel.models.smalmask import SmalMask
from perpixel.models.smalmask2 import SmalMask2
from perpixel.nn.backbones import Backbone
from perpixel.recipes.fcos import COCO_TRAINING, R50, R101
from perpixel.recipes.shapes import fcos_shapes
from perpixel.recipes.small import SMALL_DATA, SMALL_FCOS, SMALL_TRAINING, small_detector

TRAINING = replace(COCO_TRAINING, warmup="constant", warmup_factor=1 / 3)
LONG_TRAINING = replace(TRAINING, steps=270_000, milestones=(18 / 27, 24 / 27))
ONE_SCALE = DataConfig(masks=True, augment=Augment(short_sides=(800,)))
SCALES = DataConfig(masks=True)
# The long side, which the thesis does not give here, in the proportion of 800 to 1333.
RT_SCALES = DataConfig(
    masks=True, augment=Augment(short_sides=(440, 462, 484, 506, 528, 550), max_side=916), test=TestSize(550, 916)
)
RT_FCOS = FCOS(shared_convs=3, class_convs=0, box_convs=0)
# The thesis gives no size of the blur: the least that blurs at all, as it should cost "almost nothing".
BLUR = 3


def smalmask_r50_1x() -> Recipe:
    """SmalMask, separate tower, RoIPred 5x5, ResNet-50, 90k steps: the base of tables 3.1 to 3.4. Paper: 31.3 AP.

    perpixel train smalmask_r50_1x data=coco.yaml
    """
    return _recipe("smalmask_r50_1x", SmalMask(), R50, ONE_SCALE)


def smalmask2_r50_1x() -> Recipe:
    """SmalMask2, poolers of 64 and 128, ResNet-50, 90k steps (table 3.6). Paper: 32.5 AP.

    perpixel train smalmask2_r50_1x data=coco.yaml
    """
    return _recipe("smalmask2_r50_1x", SmalMask2(), R50, SCALES)


def smalmask2_rt_r50_1x() -> Recipe:
    """SmalMask2-RT, one tower of three convolutions, short side 550, ResNet-50, 90k steps (table 3.6). Paper: 29.5 AP.

    perpixel train smalmask2_rt_r50_1x data=coco.yaml
    """
    return _real_time(_recipe("smalmask2_rt_r50_1x", SmalMask2(), R50, RT_SCALES))


def smalmask2_rt_r50_3x() -> Recipe:
    """SmalMask2-RT with BlurConv, ResNet-50, 270k steps (table 3.8). Paper: 32.5 AP, boxes 39.0, 38.3 ms on a 1080 Ti.

    perpixel train smalmask2_rt_r50_3x data=coco.yaml
    """
    backbone = replace(R50, blur=BLUR)
    return _real_time(_recipe("smalmask2_rt_r50_3x", SmalMask2(), backbone, RT_SCALES, LONG_TRAINING))


def smalmask2_plus_r50_3x() -> Recipe:
    """SmalMask2+: BlurConv, ResNet-50, 270k steps (table 3.7). Paper: 36.1 AP on test-dev.

    perpixel train smalmask2_plus_r50_3x data=coco.yaml
    """
    backbone = replace(R50, blur=BLUR)
    return _recipe("smalmask2_plus_r50_3x", SmalMask2(), backbone, SCALES, LONG_TRAINING)


def smalmask2_plus_r101_3x() -> Recipe:
    """SmalMask2+ with a predictor of 7x7: BlurConv, ResNet-101, 270k steps (table 3.7). Paper: 38.0 AP on test-dev.

    perpixel train smalmask2_plus_r101_3x data=coco.yaml
    """
    backbone = replace(R101, blur=BLUR)
    return _recipe("smalmask2_plus_r101_3x", SmalMask2(kernel=7), backbone, SCALES, LONG_TRAINING)


def smalmask_mobilenetv2() -> Recipe:
    """SmalMask on FCOS and MobileNetV2, for one's own masks; sampled one level below the box, as table 3.4 has it best.

    perpixel train smalmask_mobilenetv2 data=my.yaml
    """
    return _small("smalmask_mobilenetv2", SmalMask(levels="below", truth_steps=SMALL_TRAINING.steps))


def smalmask2_mobilenetv2() -> Recipe:
    """SmalMask2 on FCOS and MobileNetV2, for one's own masks.

    perpixel train smalmask2_mobilenetv2 data=my.yaml
    """
    return _small("smalmask2_mobilenetv2", SmalMask2())


def smalmask_shapes() -> Recipe:
    """SmalMask from random weights on synthetic shapes, in minutes on two processor cores.

    perpixel train smalmask_shapes
    """
    return _shapes("smalmask_shapes", SmalMask(convs=2, truth_steps=600))


def smalmask2_shapes() -> Recipe:
    """SmalMask2 from random weights on synthetic shapes, in minutes on two processor cores.

    perpixel train smalmask2_shapes
    """
    # Half the thesis's, as are the detector's ranges of size.
    return _shapes("smalmask2_shapes", SmalMask2(lengths=(32.0, 64.0)))


def _recipe(
    name: str, instance: InstanceHeadConfig, backbone: Backbone, data: DataConfig, training: Training = TRAINING
) -> Recipe:
    return Recipe(name, DetectorConfig(backbone=backbone, instance=instance), data, training)


def _real_time(recipe: Recipe) -> Recipe:
    """One tower of three convolutions for classes and boxes ("SmalMask2-RT", 3.4)."""
    return replace(recipe, model=replace(recipe.model, head=RT_FCOS))


def _small(name: str, instance: InstanceHeadConfig) -> Recipe:
    model = replace(small_detector(SMALL_FCOS), instance=instance)
    return Recipe(name, model, replace(SMALL_DATA, masks=True), SMALL_TRAINING)


def _shapes(name: str, instance: InstanceHeadConfig) -> Recipe:
    recipe = fcos_shapes()
    model = replace(recipe.model, instance=instance)
    return Recipe(name, model, replace(recipe.data, masks=True), replace(recipe.training, steps=600))
