"""NAS-FCOS: the decoders that thesis 004 (chapter 7) found, on the backbones and at the widths of table 7.2.

All COCO recipes: 90,000 steps of 16 images, SGD, learning rate 0.01 divided by 10 at 60,000 and 80,000, weight decay 0.0001 (0
for scales and shifts of norms), short side 800, long side at most 1333 (7.4.1: FCOS's training as it was). The box loss is -log
IoU, on whole boxes, and distances are exponentials, as in the first FCOS; "improved" has FCOS's later defaults. AP figures
labelled "paper" are the thesis's, on COCO test-dev; none of these was trained by us (that takes days of GPU).
"""

from dataclasses import replace

from perpixel.engine.recipe import Recipe
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.nn.cells import PyramidGenotype, SearchedFPN
from perpixel.nn.head_cells import NAS_FCOS_HEAD, HeadGenotype
from perpixel.recipes.fcos import COCO_TRAINING, ONE_SCALE, R50, R101, X101_64x4d
from perpixel.recipes.small import SMALL_DATA, SMALL_FCOS, SMALL_TRAINING, small_detector

MOBILE = Backbone("mobilenetv2_100.ra_in1k", norm="train", frozen_stages=1)
FIRST_FCOS = FCOS(
    genotype=NAS_FCOS_HEAD,
    activation="exp",
    quality_tower="class",
    radius=None,
    box_loss="iou",
    iou_unit="pixel",
    count_images=True,
)
NARROW, MIXED, WIDE = SearchedFPN(channels=128), SearchedFPN(channels=256, widen=2), SearchedFPN(channels=256)
"""@128, @128-256 and @256: the channels of the pyramid, and of the head where they are others."""

FOUND_PYRAMID = PyramidGenotype.parse(
    [
        [3, 2, 2, 0, 1],
        [4, 3, 2, 4, 1],
        [2, 4, 0, 4, 1],
        [3, 1, 4, 3, 0],
        [0, 3, 2, 4, 0],
        [0, 1, 0, 4, 1],
        [4, 2, 2, 0, 1],
    ]
)
"""The best of 28 pyramids of a search on BCCD's blood cells (docs/methods/nas_fcos.md)."""

FOUND_HEAD = HeadGenotype(("conv3", "sep3", "skip", "deform3", "conv1", "skip"), shared_from=5)
"""The best of 37 heads of the search that followed on that pyramid."""


def nas_fcos_mnv2_128_1x() -> Recipe:
    """NAS-FCOS @128, MobileNetV2 (table 7.2). Paper: 32.0 AP.

    perpixel train nas_fcos_mnv2_128_1x data=coco.yaml
    """
    return _recipe("nas_fcos_mnv2_128_1x", MOBILE, NARROW)


def nas_fcos_mnv2_128_256_1x() -> Recipe:
    """NAS-FCOS @128-256, MobileNetV2 (table 7.2). Paper: 33.8 AP.

    perpixel train nas_fcos_mnv2_128_256_1x data=coco.yaml
    """
    return _recipe("nas_fcos_mnv2_128_256_1x", MOBILE, MIXED)


def nas_fcos_mnv2_256_1x() -> Recipe:
    """NAS-FCOS @256, MobileNetV2 (table 7.2). Paper: 34.7 AP.

    perpixel train nas_fcos_mnv2_256_1x data=coco.yaml
    """
    return _recipe("nas_fcos_mnv2_256_1x", MOBILE, WIDE)


def nas_fcos_r50_128_1x() -> Recipe:
    """NAS-FCOS @128, ResNet-50 (table 7.2). Paper: 37.9 AP.

    perpixel train nas_fcos_r50_128_1x data=coco.yaml
    """
    return _recipe("nas_fcos_r50_128_1x", R50, NARROW)


def nas_fcos_r50_128_256_1x() -> Recipe:
    """NAS-FCOS @128-256, ResNet-50 (table 7.2). Paper: 39.1 AP.

    perpixel train nas_fcos_r50_128_256_1x data=coco.yaml
    """
    return _recipe("nas_fcos_r50_128_256_1x", R50, MIXED)


def nas_fcos_r50_256_1x() -> Recipe:
    """NAS-FCOS @256, ResNet-50 (table 7.2). Paper: 39.8 AP.

    perpixel train nas_fcos_r50_256_1x data=coco.yaml
    """
    return _recipe("nas_fcos_r50_256_1x", R50, WIDE)


def nas_fcos_r101_256_1x() -> Recipe:
    """NAS-FCOS @256, ResNet-101 (table 7.2). Paper: 43.0 AP.

    perpixel train nas_fcos_r101_256_1x data=coco.yaml
    """
    return _recipe("nas_fcos_r101_256_1x", R101, WIDE)


def nas_fcos_x101_128_256_1x() -> Recipe:
    """NAS-FCOS @128-256, ResNeXt-101 64x4d (table 7.2). Paper: 44.5 AP.

    perpixel train nas_fcos_x101_128_256_1x data=coco.yaml
    """
    return _recipe("nas_fcos_x101_128_256_1x", X101_64x4d, MIXED)


def nas_fcos_x101_128_256_improved_1x() -> Recipe:
    """NAS-FCOS @128-256, ResNeXt-101 64x4d, with the tricks of the newest FCOS (table 7.2). Paper: 46.1 AP.

    perpixel train nas_fcos_x101_128_256_improved_1x data=coco.yaml
    """
    improved = FCOS(genotype=NAS_FCOS_HEAD)
    return _recipe("nas_fcos_x101_128_256_improved_1x", X101_64x4d, MIXED, improved)


def nas_fcos_mobilenetv2() -> Recipe:
    """The found pyramid and tower on MobileNetV2, for one's own data.

    perpixel train nas_fcos_mobilenetv2 data=my.yaml
    """
    model = replace(small_detector(replace(SMALL_FCOS, genotype=NAS_FCOS_HEAD)), neck=NARROW)
    return Recipe("nas_fcos_mobilenetv2", model, SMALL_DATA, SMALL_TRAINING)


def nas_fcos_found_mobilenetv2() -> Recipe:
    """The best of 28 pyramids that a search of ours tried on blood cells, under FCOS's own head, for one's own data.

    perpixel train nas_fcos_found_mobilenetv2 data=my.yaml

    What both reach there, beside FPN: docs/methods/nas_fcos.md.
    """
    return _found("nas_fcos_found_mobilenetv2", SMALL_FCOS)


def nas_fcos_found_head_mobilenetv2() -> Recipe:
    """That pyramid under the best of 37 heads of the search that followed, for one's own data.

    perpixel train nas_fcos_found_head_mobilenetv2 data=my.yaml

    What both reach there, beside FPN: docs/methods/nas_fcos.md.
    """
    return _found("nas_fcos_found_head_mobilenetv2", replace(SMALL_FCOS, genotype=FOUND_HEAD))


def _found(name: str, head: FCOS) -> Recipe:
    detector = small_detector(head)
    backbone = replace(detector.backbone, stages=(4, 8, 16, 32))
    model = replace(detector, backbone=backbone, neck=SearchedFPN(FOUND_PYRAMID, channels=64))
    return Recipe(name, model, SMALL_DATA, SMALL_TRAINING)


def _recipe(name: str, backbone: Backbone, neck: SearchedFPN, head: FCOS = FIRST_FCOS) -> Recipe:
    return Recipe(name, DetectorConfig(backbone=backbone, neck=neck, head=head), ONE_SCALE, COCO_TRAINING)
