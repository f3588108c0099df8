"""Tables 2 to 7 of MEInst (Zhang et al. 2020, section 4.1): what its parts are worth.

    perpixel ablate meinst_2 data=coco.yaml
    perpixel ablate meinst_2 --recipe meinst_mobilenetv2 data=my.yaml

The paper's base has ResNet-50 and deformable convolutions at the end of every tower, 90,000 steps, AP on COCO val2017. Table 7
takes the base without them and compares scales of inference: its rows train the same; ESE-Seg is left out.
"""

from perpixel.engine.ablation import Row, Table

_RECIPE = "meinst_r50_1x"
_COLUMNS = ("mask AP", "AP50", "AP75", "APs", "APm", "APl")
_DEFAULTS = (31.8, 53.9, 32.9, 15.9, 34.2, 45.7)


def _row(name: str, settings: str, *figures: float) -> Row:
    changed = tuple(f"model.{setting}" for setting in settings.split())
    return Row(name, changed, dict(zip(_COLUMNS, figures, strict=True)))


def _table(number: int, about: str, *rows: Row, recipe: str = _RECIPE) -> Table:
    return Table(f"meinst_{number}", f"MEInst, table {number}, COCO val2017: {about}", recipe, rows)


COMPONENTS = _table(
    2,
    "numbers a mask",
    _row("20 numbers", "instance.code.dim=20", 29.8, 52.4, 30.2, 14.5, 32.0, 43.0),
    _row("40 numbers", "instance.code.dim=40", 31.4, 53.3, 32.5, 14.6, 34.0, 44.9),
    _row("60 numbers", "instance.code.dim=60", *_DEFAULTS),
    _row("80 numbers", "instance.code.dim=80", 31.9, 53.9, 32.6, 15.4, 34.4, 45.5),
)

ENCODING = _table(
    3,
    "what is learned: codes, masks through codes, or masks",
    _row("codes", "instance.encoding=explicit", *_DEFAULTS),
    _row("masks through codes", "instance.encoding=implicit", 30.8, 53.3, 31.6, 14.5, 33.1, 43.7),
    _row("masks, no code", "instance.encoding=none", 29.7, 52.7, 29.9, 14.5, 32.0, 43.4),
)

NEARNESS = _table(
    4,
    "loss between codes",
    _row("smooth l1", "instance.nearness=smooth_l1", 30.8, 53.2, 31.5, 14.8, 33.0, 44.7),
    _row("l1", "instance.nearness=l1", 31.4, 53.4, 32.4, 15.3, 33.8, 44.8),
    _row("l2", "instance.nearness=l2", *_DEFAULTS),
    _row("cosine", "instance.nearness=cosine", 28.9, 51.1, 29.1, 13.1, 30.5, 42.8),
)

LAST = _table(
    5,
    "end of the mask branch; deformable: of every tower",
    _row("3x3", "instance.last=plain head.deformable=false", 30.3, 53.0, 31.1, 14.2, 33.2, 43.4),
    _row("large kernel", "instance.last=large_kernel head.deformable=false", 31.0, 52.7, 31.9, 14.7, 33.8, 44.5),
    _row("deformable", "instance.last=deformable head.deformable=v1", *_DEFAULTS),
)

_BOXES = ("box AP", "box AP50", "box AP75", "box APs", "box APm", "box APl")

BOXES = _table(
    6,
    "boxes of a detector that learns masks beside, and of one that does not",
    Row("boxes alone", ("model.instance=null",), dict(zip(_BOXES, (39.6, 58.2, 42.7, 22.5, 43.4, 52.1), strict=True))),
    Row(
        "boxes and masks",
        ("model.instance.encoding=explicit",),
        dict(zip(_BOXES, (40.4, 58.5, 43.5, 24.5, 43.8, 52.7), strict=True)),
    ),
)


def _scale(side: int, *figures: float) -> Row:
    # The long side in the proportion of 800 to 1333.
    settings = (f"data.test.short_side={side}", f"data.test.max_side={round(side * 1333 / 800)}")
    return Row(f"short side {side}", settings, dict(zip((*_COLUMNS[:3], "FPS"), figures, strict=True)))


SCALES = _table(
    7,
    "scale of the test images",
    _scale(400, 23.9, 42.4, 24.1, 28.2),
    _scale(600, 28.4, 49.3, 28.8, 18.5),
    _scale(800, 30.3, 53.0, 31.1, 12.8),
    recipe="meinst_r50_1x_none",
)
