"""CondInst: the thesis's settings (002, chapter 5), the released models', and small ones. The ablations: `condinst_tables`.

All COCO recipes: 90,000 steps of 16 images unless said, SGD, learning rate 0.01 divided by 10 at 60,000 and 80,000 (of 270,000:
at 210,000 and 250,000), weight decay 0.0001 (0 for scales and shifts of norms), frozen BatchNorm in the backbone, short sides
640..800, long side at most 1333. AP figures are of masks; those labelled "paper" are the thesis's, on COCO val2017 unless said.
None of these was trained by us (that takes days of GPU), what was trained is in docs/results.md.

The released models differ from the chapter's text in two places: their mask branch reads P3 to P5 and not P3 alone, and logits
are enlarged by 2 and not by 4. `condinst_r50_1x` and the long schedules are the released models; the tables of ablations
change the chapter's, `condinst_r50_1x_thesis`.
"""

from dataclasses import replace

from perpixel.data.settings import Augment, DataConfig
from perpixel.engine.recipe import Recipe
from perpixel.engine.settings import Training
from perpixel.models.candidates import Selection
from perpixel.models.condinst import CondInst
from perpixel.models.detector import DetectorConfig
from perpixel.models.duplicates import MaskNMS
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.recipes.bifpn import with_bifpn
from perpixel.recipes.fcos import COCO_TRAINING, R50, R101
from perpixel.recipes.shapes import SHAPES_FCOS, fcos_shapes
from perpixel.recipes.small import SMALL_DATA, SMALL_FCOS, SMALL_TRAINING, small_detector

AROUND_MASSES = FCOS(center="mask")
BY_PRODUCT = Selection(threshold_on="product")
MASKS = DataConfig(masks=True)
THESIS = CondInst(mask_levels=1, mask_convs=3, upsampling=4)
LONG_TRAINING = replace(COCO_TRAINING, steps=270_000, milestones=(21 / 27, 25 / 27))


def condinst_r50_1x() -> Recipe:
    """CondInst, ResNet-50, 90k steps (table 5.7). Paper: 35.9 AP on test-dev.

    perpixel train condinst_r50_1x data=coco.yaml
    """
    return _recipe("condinst_r50_1x", R50)


def condinst_r50_1x_one_scale() -> Recipe:
    """CondInst, ResNet-50, short side 800 only (table 5.7). Paper: 35.4 AP on test-dev.

    perpixel train condinst_r50_1x_one_scale data=coco.yaml
    """
    recipe = _recipe("condinst_r50_1x_one_scale", R50)
    return replace(recipe, data=replace(MASKS, augment=Augment(short_sides=(800,))))


def condinst_r50_3x() -> Recipe:
    """CondInst, ResNet-50, 270k steps (table 5.7). Paper: 37.8 AP on test-dev.

    perpixel train condinst_r50_3x data=coco.yaml
    """
    return _recipe("condinst_r50_3x", R50, training=LONG_TRAINING)


def condinst_r50_3x_sem() -> Recipe:
    """CondInst, ResNet-50, 270k steps, with the semantic loss (table 5.7). Paper: 38.8 AP on test-dev.

    perpixel train condinst_r50_3x_sem data=coco.yaml
    """
    return _recipe("condinst_r50_3x_sem", R50, CondInst(semantic=True), LONG_TRAINING)


def condinst_r101_3x() -> Recipe:
    """CondInst, ResNet-101, 270k steps (table 5.7). Paper: 39.1 AP on test-dev.

    perpixel train condinst_r101_3x data=coco.yaml
    """
    return _recipe("condinst_r101_3x", R101, training=LONG_TRAINING)


def condinst_r101_3x_sem() -> Recipe:
    """CondInst, ResNet-101, 270k steps, with the semantic loss (table 5.7). Paper: 40.1 AP on test-dev.

    perpixel train condinst_r101_3x_sem data=coco.yaml
    """
    return _recipe("condinst_r101_3x_sem", R101, CondInst(semantic=True), LONG_TRAINING)


def condinst_r50_bifpn_1x() -> Recipe:
    """CondInst, ResNet-50, BiFPN, 90k steps. Published by AdelaiDet: 37.3 AP.

    perpixel train condinst_r50_bifpn_1x data=coco.yaml
    """
    return _bifpn("condinst_r50_bifpn_1x", R50, training=COCO_TRAINING)


def condinst_r50_bifpn_3x() -> Recipe:
    """CondInst, ResNet-50, BiFPN, 270k steps. Published by AdelaiDet: 38.9 AP.

    perpixel train condinst_r50_bifpn_3x data=coco.yaml
    """
    return _bifpn("condinst_r50_bifpn_3x", R50)


def condinst_r50_bifpn_3x_sem() -> Recipe:
    """CondInst, ResNet-50, BiFPN, 270k steps, with the semantic loss. Published by AdelaiDet: 39.4 AP.

    perpixel train condinst_r50_bifpn_3x_sem data=coco.yaml
    """
    return _bifpn("condinst_r50_bifpn_3x_sem", R50, CondInst(semantic=True))


def condinst_r101_bifpn_3x() -> Recipe:
    """CondInst, ResNet-101, BiFPN, 270k steps. Published by AdelaiDet: 39.6 AP.

    perpixel train condinst_r101_bifpn_3x data=coco.yaml
    """
    return _bifpn("condinst_r101_bifpn_3x", R101)


def condinst_r101_bifpn_3x_sem() -> Recipe:
    """CondInst, ResNet-101, BiFPN, 270k steps, with the semantic loss. Published by AdelaiDet: 40.2 AP.

    perpixel train condinst_r101_bifpn_3x_sem data=coco.yaml
    """
    return _bifpn("condinst_r101_bifpn_3x_sem", R101, CondInst(semantic=True))


def condinst_r50_1x_thesis() -> Recipe:
    """CondInst as the chapter has it: mask branch on P3 alone, logits enlarged by 4 (tables 5.1 to 5.5). Paper: 35.7 AP.

    perpixel train condinst_r50_1x_thesis data=coco.yaml
    """
    return _recipe("condinst_r50_1x_thesis", R50, THESIS)


def condinst_r50_1x_mask_nms() -> Recipe:
    """Table 5.6: no boxes, masks alone tell objects apart. Paper: 35.7 AP, as with box NMS.

    perpixel train condinst_r50_1x_mask_nms data=coco.yaml
    """
    return without_boxes(_recipe("condinst_r50_1x_mask_nms", R50, THESIS))


def condinst_mobilenetv2() -> Recipe:
    """CondInst on MobileNetV2, for one's own masks.

    perpixel train condinst_mobilenetv2 data=my.yaml
    """
    model = replace(
        small_detector(replace(SMALL_FCOS, center="mask")), instance=CondInst(mask_width=64), selection=BY_PRODUCT
    )
    return Recipe("condinst_mobilenetv2", model, replace(SMALL_DATA, masks=True), SMALL_TRAINING)


def condinst_mobilenetv2_mask_nms() -> Recipe:
    """CondInst on MobileNetV2 without boxes, for one's own masks (5.3.5).

    perpixel train condinst_mobilenetv2_mask_nms data=my.yaml
    """
    return replace(without_boxes(condinst_mobilenetv2()), name="condinst_mobilenetv2_mask_nms")


def condinst_shapes() -> Recipe:
    """CondInst from random weights on synthetic shapes, in minutes on two processor cores.

    perpixel train condinst_shapes
    """
    recipe = fcos_shapes()
    model = replace(
        recipe.model,
        head=replace(SHAPES_FCOS, center="mask"),
        instance=CondInst(mask_convs=2, mask_width=64),
        selection=BY_PRODUCT,
    )
    data = replace(recipe.data, masks=True)
    return Recipe("condinst_shapes", model, data, replace(recipe.training, steps=600))


def _recipe(
    name: str, backbone: Backbone, instance: CondInst | None = None, training: Training = COCO_TRAINING
) -> Recipe:
    model = DetectorConfig(backbone=backbone, head=AROUND_MASSES, instance=instance or CondInst(), selection=BY_PRODUCT)
    return Recipe(name, model, MASKS, training)


def _bifpn(
    name: str, backbone: Backbone, instance: CondInst | None = None, training: Training = LONG_TRAINING
) -> Recipe:
    return with_bifpn(_recipe(name, backbone, instance, training))


def without_boxes(recipe: Recipe) -> Recipe:
    """The recipe of an FCOS with its box branch removed and duplicates found by their masks (5.3.5)."""
    assert isinstance(recipe.model, DetectorConfig)
    assert isinstance(recipe.model.head, FCOS)
    head = replace(recipe.model.head, box_loss="none")
    return replace(recipe, model=replace(recipe.model, head=head, duplicates=MaskNMS()))
