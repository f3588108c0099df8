"""FCOS in crowds (thesis 002, 3.3.5): several boxes a cell, Set NMS, on CrowdHuman and on synthetic crowds.

CrowdHuman: 30 epochs of the 15,000 training images, 16 a step, NMS at 0.5, a location is trained on the object of the nearest
centre; "other settings are the same as that of COCO". Figures labelled "paper" are the thesis's, on CrowdHuman's val; none was
trained by us (that takes a day of GPU), what was trained is in docs/methods/crowds.md.
"""

from dataclasses import replace

from perpixel.engine.ablation import Row, Table
from perpixel.engine.recipe import Recipe
from perpixel.models.detector import DetectorConfig
from perpixel.models.duplicates import SetNMS
from perpixel.models.fcos import FCOS
from perpixel.recipes.fcos import COCO_TRAINING, ONE_SCALE, R50
from perpixel.recipes.retinanet import NMS_HALF
from perpixel.recipes.shapes import SHAPES_FCOS, fcos_shapes


def fcos_r50_crowdhuman() -> Recipe:
    """FCOS with two boxes a cell and Set NMS, ResNet-50, 30 epochs of CrowdHuman (table 3.10). Paper: 87.28 AP.

    The paper's MR^-2 is 51.21, its JI 77.34.

    perpixel train fcos_r50_crowdhuman data.train=annotation_train.odgt data.val=annotation_val.odgt
    """
    model = DetectorConfig(
        backbone=R50, head=FCOS(prefer="nearest", per_cell=2), selection=NMS_HALF, duplicates=SetNMS()
    )
    return Recipe("fcos_r50_crowdhuman", model, ONE_SCALE, replace(COCO_TRAINING, steps=15_000 * 30 // 16))


def fcos_crowds() -> Recipe:
    """FCOS with two boxes a cell and Set NMS from random weights on synthetic crowds, in minutes on two processor cores.

    perpixel train fcos_crowds
    """
    recipe = fcos_shapes()
    head = replace(SHAPES_FCOS, prefer="nearest", per_cell=2)
    model = replace(recipe.model, head=head, selection=NMS_HALF, duplicates=SetNMS())
    data = replace(recipe.data, train="crowds:2000:0", val="crowds:100:1")
    return replace(recipe, name="fcos_crowds", model=model, data=data)


_COLUMNS = ("crowd AP", "crowd MR-2", "crowd JI")


def _row(name: str, settings: str, *figures: float) -> Row:
    changed = tuple(f"model.{setting}" for setting in settings.split())
    return Row(name, changed, dict(zip(_COLUMNS, figures, strict=True)))


CROWDHUMAN = Table(
    "crowds_3.10",
    "thesis 002, table 3.10, CrowdHuman val: boxes a cell, and what NMS spares",
    "fcos_r50_crowdhuman",
    (
        _row(
            "RetinaNet improved",
            "head.kind=RetinaNet head.norm=group head.level_scales=true head.box_loss=giou duplicates.kind=BoxNMS",
            *(81.60, 57.36, 72.88),
        ),
        _row(
            "FCOS without centre-ness",
            "head.quality=none head.box_weight=none head.per_cell=1 duplicates.kind=BoxNMS",
            *(83.16, 59.04, 73.09),
        ),
        _row(
            "FCOS",
            "head.quality=centerness head.box_weight=centerness head.per_cell=1 duplicates.kind=BoxNMS",
            *(85.0, 51.34, 74.97),
        ),
        _row("two boxes a cell", "head.per_cell=2 duplicates.kind=BoxNMS", 85.19, 51.60, 75.14),
        _row("two boxes a cell, Set NMS", "head.per_cell=2 duplicates.kind=SetNMS", 87.28, 51.21, 77.34),
    ),
)
