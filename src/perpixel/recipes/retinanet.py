"""RetinaNet with detectron2's settings, and with FCOS's improvements. Table 3.3 (thesis 002) is in `fcos_tables`.

All COCO recipes: 90,000 steps of 16 images, SGD, learning rate 0.01 divided by 10 at 60,000 and 80,000, weight decay 0.0001
(0 for scales and shifts of norms), frozen BatchNorm. AP figures labelled "paper" are the thesis's, on COCO val2017.
"""

from perpixel.engine.recipe import Recipe
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.fpn import FPN
from perpixel.recipes.fcos import COCO_TRAINING, ONE_SCALE, R50
from perpixel.recipes.small import SMALL_DATA, SMALL_TRAINING, small_detector

NMS_HALF = Selection(iou=0.5)
IMPROVED = RetinaNet(norm="group", level_scales=True, box_loss="giou")


def retinanet_r50_1x() -> Recipe:
    """RetinaNet, ResNet-50, 9 anchors, P6 from C5, NMS 0.5 (table 3.3). Paper: 35.9 AP.

    perpixel train retinanet_r50_1x data=coco.yaml
    """
    model = DetectorConfig(backbone=R50, neck=FPN(top_from="c5"), head=RetinaNet(), selection=NMS_HALF)
    return Recipe("retinanet_r50_1x", model, ONE_SCALE, COCO_TRAINING)


def retinanet_mobilenetv2() -> Recipe:
    """RetinaNet with FCOS's improvements on MobileNetV2, for one's own data.

    perpixel train retinanet_mobilenetv2 data=my.yaml
    """
    return Recipe("retinanet_mobilenetv2", small_detector(IMPROVED), SMALL_DATA, SMALL_TRAINING)
