"""Tables 2 to 11 of PointINS (Qi et al., section 4.1.1): what its parts are worth.

    perpixel ablate pointins_7 data=coco.yaml
    perpixel ablate pointins_7 data=my.yaml --recipe pointins_retinanet_mobilenetv2

The paper's base is RetinaNet with ResNet-50, 90,000 steps, mask AP on COCO val2017. Tables 4, 5 and 10 have rows that read
anchors: they need a recipe on RetinaNet. Table 11 compares scales of inference: its rows train the same; those of other methods
are left out.
"""

from perpixel.engine.ablation import Row, Table

_RECIPE = "pointins_retinanet_r50_1x"
_COLUMNS = ("mask AP", "AP50", "AP75")
_DEFAULTS = (32.5, 51.9, 33.8)


def _row(name: str, settings: str, *figures: float) -> Row:
    changed = tuple(f"model.instance.{setting}" for setting in settings.split())
    return Row(name, changed, dict(zip(_COLUMNS, figures, strict=True)))


def _scale(side: int, *figures: float) -> Row:
    # The long side in the proportion of 800 to 1333.
    settings = (f"data.test.short_side={side}", f"data.test.max_side={round(side * 1333 / 800)}")
    return Row(f"short side {side}", settings, dict(zip((*_COLUMNS, "FPS"), figures, strict=True)))


def _table(number: int, about: str, *rows: Row) -> Table:
    return Table(f"pointins_{number}", f"PointINS, table {number}, COCO val2017: {about}", _RECIPE, rows)


TEMPLATE = _table(
    2,
    "shape (E, K, K) of the template",
    _row("(9, 16, 16)", "channels=9 size=16", *_DEFAULTS),
    _row("(1, 16, 16)", "channels=1 size=16", 30.4, 49.2, 31.6),
    _row("(4, 16, 16)", "channels=4 size=16", 31.6, 50.1, 32.4),
    _row("(36, 8, 8)", "channels=36 size=8", 31.8, 51.0, 32.4),
    _row("(1, 48, 48)", "channels=1 size=48", 29.6, 48.5, 30.1),
    _row("(16, 16, 16)", "channels=16 size=16", 32.3, 51.7, 33.7),
    _row("(25, 16, 16)", "channels=25 size=16", 32.5, 51.8, 33.6),
)

KERNEL = _table(
    3,
    "kernel of the up-scaling convolution, E its square",
    _row("3x3", "kernel=3 channels=9", *_DEFAULTS),
    _row("1x1", "kernel=1 channels=1", 30.4, 46.3, 28.7),
    _row("5x5", "kernel=5 channels=25", 32.7, 52.0, 33.9),
    _row("7x7", "kernel=7 channels=49", 32.7, 51.9, 33.9),
)

INDICATOR = _table(
    4,
    "parts of I^z",
    _row("none: the feature map", "indicator.parts=[features]", 27.9, 46.5, 28.5),
    _row("I^o", "indicator.parts=[stride,anchor]", 25.5, 44.9, 26.1),
    _row("r", "indicator.parts=[center]", 26.3, 45.0, 26.6),
    _row("p", "indicator.parts=[sides]", 28.9, 47.1, 29.3),
    _row("I^o, r", "indicator.parts=[stride,anchor,center]", 30.4, 49.1, 31.2),
    _row("r, p", "indicator.parts=[center,sides]", 31.7, 50.6, 32.8),
    _row("I^o, p", "indicator.parts=[stride,anchor,sides]", 31.3, 50.5, 32.6),
    _row("I^o, r, p", "indicator.parts=[stride,anchor,center,sides]", *_DEFAULTS),
)

_ALL = "indicator.parts=[stride,anchor,center,sides]"
INDICATOR_DESIGN = _table(
    5,
    "other designs of I^z",
    _row("from the feature map", "indicator.parts=[features]", 27.9, 46.5, 28.5),
    _row("I^q as FPN regresses boxes", "indicator.parts=[stride,anchor,deltas]", 31.8, 50.3, 32.7),
    _row("log(I^o)", f"{_ALL} indicator.transform=log_anchor", 32.2, 51.6, 33.6),
    _row("sigmoid(I^z)", f"{_ALL} indicator.transform=sigmoid", 32.3, 51.6, 33.6),
    _row("tanh(I^z)", f"{_ALL} indicator.transform=tanh", 32.3, 51.8, 33.4),
    _row("default", f"{_ALL} indicator.transform=none", *_DEFAULTS),
)

LAYERS = _table(
    6,
    "layers from I^z to the weights",
    _row("FC+ReLU", "layers=fc_relu", *_DEFAULTS),
    _row("FC", "layers=fc", 31.7, 51.0, 33.4),
    _row("2x (FC+ReLU)", "layers=fc_relu_twice", 32.6, 52.0, 33.6),
    _row("FC+ReLU+FC", "layers=fc_relu_fc", 32.3, 51.7, 33.6),
)

FUSION = _table(
    7,
    "fusion of template and weights",
    _row("addition", "fusion=addition", 31.1, 50.9, 33.5),
    _row("concatenation", "fusion=concatenation", 30.9, 50.6, 33.6),
    _row("3x3 convolution", "fusion=3x3", 32.5, 51.8, 33.7),
    _row("1x1 convolution", "fusion=1x1", *_DEFAULTS),
)

POINTS = _table(
    8,
    "points an image that train the masks",
    _row("32", "points.limit=32", 29.6, 48.9, 31.8),
    _row("64", "points.limit=64", 31.7, 51.1, 33.0),
    _row("128", "points.limit=128", *_DEFAULTS),
    _row("256", "points.limit=256", 32.4, 51.7, 33.8),
    _row("all", "points.limit=null", 32.5, 51.9, 33.7),
)

OVERLAPS = _table(
    9,
    "IoU of anchor and of target box with the object",
    _row("0.4, 0.5", "points.anchor_iou=0.4 points.box_iou=0.5", 30.2, 50.7, 32.7),
    _row("0.5, 0.5", "points.anchor_iou=0.5 points.box_iou=0.5", *_DEFAULTS),
    _row("0.5, 0.6", "points.anchor_iou=0.5 points.box_iou=0.6", 32.0, 51.2, 33.1),
    _row("0.5, 0.7", "points.anchor_iou=0.5 points.box_iou=0.7", 31.0, 50.1, 32.2),
    _row("0.6, 0.6", "points.anchor_iou=0.6 points.box_iou=0.6", 31.7, 50.9, 32.9),
)


def _shares(name: str, anchor: float, truth: float, regressed: float, *figures: float) -> Row:
    setting = f"model.instance.points.shares={{anchor: {anchor}, truth: {truth}, regressed: {regressed}}}"
    return Row(name, (setting,), dict(zip(_COLUMNS, figures, strict=True)))


TARGET_BOXES = _table(
    10,
    "target boxes: anchors, true boxes, regressed boxes",
    _shares("anchors", 1.0, 0.0, 0.0, 24.5, 42.7, 25.3),
    _shares("true boxes", 0.0, 1.0, 0.0, 32.4, 51.8, 33.9),
    _shares("regressed boxes", 0.0, 0.0, 1.0, 31.9, 51.4, 33.4),
    _shares("0.05, 0.05, 0.9", 0.05, 0.05, 0.9, *_DEFAULTS),
)

SCALES = _table(
    11,
    "scale of the test images",
    _scale(800, *_DEFAULTS, 18.2),
    _scale(600, 30.3, 49.4, 31.3, 22.4),
    _scale(400, 25.8, 44.7, 26.4, 27.3),
)
