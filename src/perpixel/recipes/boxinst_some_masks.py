"""Some masks, mostly boxes: tables 6.7 and 6.8 of thesis 002. Of COCO's 80 classes Pascal VOC has 20; one part comes with masks.

As `boxinst_r50_1x_thesis`, but that objects of the classes in `data.masks_of` teach their masks by Dice. The paper's figures are
mask AP on COCO val2017 over all 80 classes, and over those without masks; `perpixel evaluate` prints both. None of these was
trained by us. The chapter does not say which loss the drawn masks have, nor how it weighs against the others' losses: here it
is CondInst's, and every candidate weighs the same.
"""

from dataclasses import replace

from perpixel.data.settings import DataConfig
from perpixel.engine.recipe import Recipe
from perpixel.models.boxinst import BoxInst
from perpixel.models.condinst import CondInst
from perpixel.models.detector import DetectorConfig
from perpixel.recipes.boxinst import THESIS
from perpixel.recipes.condinst import AROUND_MASSES, BY_PRODUCT
from perpixel.recipes.fcos import COCO_TRAINING, R50

OF_VOC = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "boat", "bird", "cat", "dog", "horse", "sheep",
    "cow", "bottle", "chair", "couch", "potted plant", "dining table", "tv",
)  # fmt: skip
NOT_OF_VOC = (
    "truck", "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "elephant", "bear", "zebra", "giraffe",
    "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "wine glass", "cup", "fork", "knife",
    "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake",
    "bed", "toilet", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
# CondInst with BoxInst's mask channels and candidates: the rows differ in the loss alone.
MASKS_ALONE = CondInst(mask_channels=THESIS.mask_channels, policy=THESIS.policy)
MASKS_AND_BOXES = replace(THESIS, known_masks="dice")
MASKS_AND_PROJECTION = replace(MASKS_AND_BOXES, supervision="projection")


def boxinst_r50_1x_20_masks_alone() -> Recipe:
    """Table 6.7, row 1: masks of VOC's classes; other objects teach no mask. Paper: 24.7 AP, 19.9 on the other 60 classes.

    perpixel train boxinst_r50_1x_20_masks_alone data=coco.yaml
    """
    return _recipe("boxinst_r50_1x_20_masks_alone", MASKS_ALONE, OF_VOC)


def boxinst_r50_1x_20_masks_projection() -> Recipe:
    """Table 6.7, row 2: masks of VOC's classes, projections of the others. Paper: 31.8 AP, 29.7 on the other 60 classes.

    perpixel train boxinst_r50_1x_20_masks_projection data=coco.yaml
    """
    return _recipe("boxinst_r50_1x_20_masks_projection", MASKS_AND_PROJECTION, OF_VOC)


def boxinst_r50_1x_20_masks() -> Recipe:
    """Table 6.7, row 3: masks of VOC's classes, BoxInst for the others. Paper: 32.5 AP, 30.9 on the other 60 classes.

    perpixel train boxinst_r50_1x_20_masks data=coco.yaml
    """
    return _recipe("boxinst_r50_1x_20_masks", MASKS_AND_BOXES, OF_VOC)


def boxinst_r50_1x_60_masks_alone() -> Recipe:
    """Table 6.8, row 1: masks of classes not in VOC; other objects teach no mask. Paper: 32.1 AP, 25.5 on VOC's 20 classes.

    perpixel train boxinst_r50_1x_60_masks_alone data=coco.yaml
    """
    return _recipe("boxinst_r50_1x_60_masks_alone", MASKS_ALONE, NOT_OF_VOC)


def boxinst_r50_1x_60_masks_projection() -> Recipe:
    """Table 6.8, row 2: masks of classes not in VOC, projections of the others. Paper: 33.1 AP, 31.6 on VOC's 20 classes.

    perpixel train boxinst_r50_1x_60_masks_projection data=coco.yaml
    """
    return _recipe("boxinst_r50_1x_60_masks_projection", MASKS_AND_PROJECTION, NOT_OF_VOC)


def boxinst_r50_1x_60_masks() -> Recipe:
    """Table 6.8, row 3: masks of classes not in VOC, BoxInst for the others. Paper: 33.8 AP, 35.9 on VOC's 20 classes.

    perpixel train boxinst_r50_1x_60_masks data=coco.yaml
    """
    return _recipe("boxinst_r50_1x_60_masks", MASKS_AND_BOXES, NOT_OF_VOC)


def _recipe(name: str, instance: CondInst | BoxInst, masks_of: tuple[str, ...]) -> Recipe:
    model = DetectorConfig(backbone=R50, head=AROUND_MASSES, instance=instance, selection=BY_PRODUCT)
    return Recipe(name, model, DataConfig(masks="some", masks_of=masks_of), COCO_TRAINING)
