"""DirectPose: the thesis's rows on COCO keypoints (thesis 002, tables 4.1 to 4.5), and small ones.

All COCO recipes: images of short side 640..800 in crops of at most 800 x 800, mirrored half the time; SGD with learning rate 0.01
that falls straight to 0, weight decay 0.0001. The thesis's short schedule is 25 epochs of 57,000 images, 16 a step, the long one
100 epochs, 32 a step. It says "randomly resized" and no more: the short sides are FCOS's. AP figures are of keypoints and the
thesis's; none of these was trained by us, what was trained is in docs/methods/directpose.md.
"""

from dataclasses import replace

from perpixel.data.settings import Augment, DataConfig
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.directpose import DirectPose, HeatMapTask, KPAlign
from perpixel.models.duplicates import KeypointNMS
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.recipes.fcos import R50, R101
from perpixel.recipes.shapes import SHAPES_FCOS, fcos_shapes
from perpixel.recipes.small import SMALL_DATA, SMALL_TRAINING, small_detector

TRAINING = Training(steps=90_000, schedule="linear")
LONG_TRAINING = replace(TRAINING, steps=180_000, batch_size=32)
DATA = DataConfig(augment=Augment(crop_size=800))
WITHOUT_BOXES = FCOS(box_loss="none")
NMS_HALF = Selection(iou=0.5)
BESIDE_BOXES = DirectPose(boxes="annotated", convs=4)


def directpose_r50() -> Recipe:
    """DirectPose with heat maps, ResNet-50, 25 epochs. Paper: 58.0 keypoint AP on minival, the base of tables 4.1 to 4.3.

    perpixel train directpose_r50 data=coco.yaml
    """
    return Recipe("directpose_r50", _without_boxes(R50), DATA, TRAINING)


def directpose_r50_long() -> Recipe:
    """DirectPose, ResNet-50, 100 epochs. Paper: 62.2 keypoint AP on test-dev, 63.1 on minival; 63.0 with several scales.

    perpixel train directpose_r50_long data=coco.yaml
    """
    return Recipe("directpose_r50_long", _without_boxes(R50), DATA, LONG_TRAINING)


def directpose_r101_long() -> Recipe:
    """DirectPose, ResNet-101, 100 epochs. Paper: 63.3 keypoint AP on test-dev; 64.8 at several scales.

    perpixel train directpose_r101_long data=coco.yaml
    """
    return Recipe("directpose_r101_long", _without_boxes(R101), DATA, LONG_TRAINING)


def directpose_r50_boxes_long() -> Recipe:
    """DirectPose and FCOS's boxes, ResNet-50, 100 epochs. Paper: 61.5 keypoint AP and 55.3 box AP on minival.

    perpixel train directpose_r50_boxes_long data=coco.yaml
    """
    return Recipe("directpose_r50_boxes_long", _with_boxes(R50), DATA, LONG_TRAINING)


def directpose_r101_boxes_long() -> Recipe:
    """DirectPose and FCOS's boxes, ResNet-101, 100 epochs; the thesis gives no figure.

    perpixel train directpose_r101_boxes_long data=coco.yaml
    """
    return Recipe("directpose_r101_boxes_long", _with_boxes(R101), DATA, LONG_TRAINING)


def directpose_mobilenetv2() -> Recipe:
    """DirectPose on FCOS and MobileNetV2, for one's own keypoints.

    perpixel train directpose_mobilenetv2 data=my.yaml
    """
    model = replace(small_detector(WITHOUT_BOXES), instance=DirectPose(), selection=NMS_HALF, duplicates=KeypointNMS())
    training = replace(SMALL_TRAINING, schedule="linear")
    return Recipe("directpose_mobilenetv2", model, SMALL_DATA, training)


def directpose_figures() -> Recipe:
    """DirectPose from random weights on synthetic stick figures, in minutes on two processor cores.

    perpixel train directpose_figures
    """
    recipe = fcos_shapes()
    model = replace(
        recipe.model,
        head=replace(SHAPES_FCOS, box_loss="none"),
        instance=DirectPose(align=KPAlign(width=16), heat_map=HeatMapTask(width=32)),
        selection=NMS_HALF,
        duplicates=KeypointNMS(),
    )
    data = replace(recipe.data, train="figures:2000:0", val="figures:100:1")
    training = replace(recipe.training, steps=1500, schedule="linear")
    return Recipe("directpose_figures", model, data, training)


def _without_boxes(backbone: Backbone) -> DetectorConfig:
    return DetectorConfig(
        backbone=backbone,
        head=WITHOUT_BOXES,
        instance=DirectPose(),
        selection=NMS_HALF,
        duplicates=KeypointNMS(),
    )


def _with_boxes(backbone: Backbone) -> DetectorConfig:
    return DetectorConfig(backbone=backbone, instance=BESIDE_BOXES, selection=NMS_HALF)
