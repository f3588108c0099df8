"""Tables 3.2 to 3.7 of thesis 002: what FCOS's parts are worth. Box AP on COCO val2017, ResNet-50, 90,000 steps.

    perpixel ablate fcos_3.4 data=coco.yaml
    perpixel ablate fcos_3.6 data=my.yaml --recipe fcos_mobilenetv2

They need a recipe on FCOS. Table 3.2 gives no AP but how many locations lie in several objects, which `perpixel analyze
assignment` counts; its rows without a pyramid are left out. The IoU branch is not the thesis's but AdelaiDet's.
"""

from perpixel.engine.ablation import Row, Table

_RECIPE = "fcos_r50_1x"
_COLUMNS = ("box AP", "box AP50", "box AP75", "box APs", "box APm", "box APl")
_RECALLS = ("box AR1", "box AR10", "box AR100")
_DEFAULTS = (38.9, 57.5, 42.2, 23.1, 42.7, 50.2)
_WITHOUT_CENTERNESS = (38.0, 57.2, 40.9, 21.5, 42.4, 49.1)


def _row(name: str, settings: str, *figures: float) -> Row:
    changed = tuple(f"model.{setting}" for setting in settings.split())
    columns = _COLUMNS if len(figures) == len(_COLUMNS) else (*_COLUMNS, *_RECALLS)
    return Row(name, changed, dict(zip(columns, figures, strict=True)))


def _table(number: str, about: str, *rows: Row) -> Table:
    return Table(f"fcos_{number}", f"thesis 002, table {number}, COCO val2017: {about}", _RECIPE, rows)


def _ambiguous(name: str, settings: str, *shares: float) -> Row:
    columns = ("in one object, %", "in two, %", "in three or more, %")
    return Row(name, (settings,), dict(zip(columns, shares, strict=True)))


AMBIGUITY = _table(
    "3.2",
    "positive locations that lie in several objects",
    _ambiguous("the whole box", "model.head.radius=null", 92.58, 6.97, 0.45),
    _ambiguous("centre sampling", "model.head.radius=1.5", 97.34, 2.59, 0.07),
)

# A RetinaNet begins from its own defaults: four convolutions, whatever the recipe's FCOS has.
_RETINANET = "head.kind=RetinaNet neck.top_from=c5 selection.iou=0.5"
_IMPROVED = (
    "head.kind=RetinaNet head.norm=group head.level_scales=true head.box_loss=giou neck.top_from=p5 selection.iou=0.6"
)

RETINANET = _table(
    "3.3",
    "FCOS against RetinaNet",
    _row("RetinaNet, 9 anchors", _RETINANET, 35.9, 55.8, 38.4, 20.6, 39.8, 46.6, 31.0, 49.8, 53.0),
    _row(
        "RetinaNet improved, 1 anchor",
        f"{_IMPROVED} head.scales=[4.0] head.ratios=[1.0]",
        *(35.2, 55.6, 37.0, 19.9, 39.2, 45.2, 30.4, 49.9, 53.5),
    ),
    _row("RetinaNet improved, 9 anchors", _IMPROVED, 37.6, 56.6, 40.6, 21.5, 42.1, 48.0, 32.1, 52.2, 56.4),
    _row("FCOS without centre-ness", "head.quality=none head.box_weight=none", *_WITHOUT_CENTERNESS, 32.1, 52.4, 56.2),
    _row("FCOS", "head.quality=centerness head.box_weight=centerness", *_DEFAULTS, 32.4, 53.8, 57.5),
)

CENTERNESS = _table(
    "3.4",
    "centre-ness",
    _row("without centre-ness", "head.quality=none head.box_weight=none", *_WITHOUT_CENTERNESS),
    _row(
        "centre-ness of the predicted distances",
        "head.quality=from_box head.box_weight=none",
        *(37.5, 56.5, 40.2, 21.6, 41.5, 48.5),
    ),
    _row(
        "L1 loss for centre-ness",
        "head.quality=centerness head.box_weight=centerness head.quality_loss=l1",
        *(38.9, 57.6, 42.0, 23.0, 42.3, 51.0),
    ),
    _row("centre-ness", "head.quality=centerness head.box_weight=centerness head.quality_loss=bce", *_DEFAULTS),
)

DESIGN = _table(
    "3.5",
    "other choices",
    _row("baseline", "head.norm=group head.box_loss=giou neck.top_from=p5", *_DEFAULTS),
    _row("without GroupNorm", "head.norm=none", 37.9, 56.4, 40.9, 22.1, 41.8, 48.8),
    _row("-log IoU in place of GIoU", "head.box_loss=iou", 38.6, 57.2, 41.9, 22.4, 42.1, 49.8),
    _row("P6 from C5", "neck.top_from=c5", 38.5, 57.4, 41.7, 22.8, 42.1, 49.3),
)

RADIUS = _table(
    "3.6",
    "radius of the sampling region, in strides",
    _row("radius 1.0", "head.radius=1.0", 38.5, 57.2, 41.5, 22.6, 42.3, 49.7),
    _row("radius 1.5", "head.radius=1.5", *_DEFAULTS),
    _row("radius 2.0", "head.radius=2.0", 38.8, 57.7, 41.7, 22.7, 42.6, 49.9),
)

LEVELS = _table(
    "3.7",
    "which objects a level takes",
    _row("FPN's formula", "head.levels.rule=fpn", 37.7, 56.6, 40.6, 22.2, 40.9, 49.7),
    _row("sqrt(h w) / 2", "head.levels.rule=area", 37.6, 56.5, 40.6, 22.4, 41.6, 47.3),
    _row("max(h, w) / 2", "head.levels.rule=side", 38.1, 57.0, 41.3, 22.5, 41.8, 48.7),
    _row("max(l, t, r, b)", "head.levels.rule=distance", *_DEFAULTS),
)

QUALITY = Table(
    "fcos_iou",
    "AdelaiDet's published models, COCO val2017: what the branch beside the box predicts",
    _RECIPE,
    (
        Row("centre-ness", ("model.head.quality=centerness", "model.head.box_weight=centerness"), {"box AP": 38.7}),
        Row("the box's IoU", ("model.head.quality=iou", "model.head.box_weight=none"), {"box AP": 39.4}),
    ),
)
