"""Tables 5.1 to 5.7 of thesis 004: what DR1Mask's parts are worth. COCO val2017, ResNet-50, 90,000 steps (table 5.6: 270,000).

    perpixel ablate dr1mask_5.4 data=coco.yaml
    perpixel ablate dr1mask_5.4 --recipe dr1mask_mobilenetv2 data=my.yaml

Tables 5.1, 5.3 and 5.4 are of instances, mask AP; 5.2 and 5.5 to 5.7 of panoptic segmentation, PQ. Every row names all
that it differs in from its table's recipe. Times are the thesis's, ms on one 1080Ti.
"""

from perpixel.engine.ablation import Row, Table

_INSTANCES, _PANOPTIC = "dr1mask_r50_1x", "dr1mask_panoptic_r50_1x"
_AP, _TIMED, _PQ = "mask AP,AP50,AP75", "ms,mask AP,AP50,AP75", "panoptic PQ,panoptic PQ_things,panoptic PQ_stuff"


def _row(name: str, settings: str, columns: str, *figures: float, prefix: str = "model.instance.") -> Row:
    changed = tuple(f"{prefix}{setting}" for setting in settings.split())
    return Row(name, changed, dict(zip(columns.split(","), figures, strict=True)))


def _panoptic_row(name: str, settings: str, *figures: float) -> Row:
    return _row(name, settings, _PQ, *figures, prefix="model.detector.instance.")


def _table(number: str, about: str, *rows: Row, recipe: str = _INSTANCES) -> Table:
    return Table(f"dr1mask_{number}", f"thesis 004, table {number}, COCO val2017: {about}", recipe, rows)


FACTORS = _table(
    "5.1",
    "the dynamic factors, with a weight a channel",
    _row("baseline", "attention.kind=Vector factors=none", _AP, 34.7, 55.5, 36.8),
    _row("A", "attention.kind=Vector factors=a", _AP, 34.9, 55.9, 36.8),
    _row("B", "attention.kind=Vector factors=b", _AP, 34.9, 55.6, 37.0),
    _row("A, B", "attention.kind=Vector factors=ab", _AP, 35.2, 56.1, 37.5),
)

PANOPTIC_FACTORS = _table(
    "5.2",
    "the dynamic factors in panoptic segmentation",
    _panoptic_row("without A, B", "factors=none", 38.7, 45.9, 28.0),
    _panoptic_row("A, B", "factors=ab", 40.0, 46.8, 29.9),
    recipe=_PANOPTIC,
)

POSITIONS = _table(
    "5.3",
    "what the factors are read from, with a weight a channel",
    _row("none", "attention.kind=Vector factors=none", _AP, 34.7, 55.5, 36.8),
    _row("FPN", "attention.kind=Vector factors=ab position=fpn", _AP, 34.2, 55.5, 36.0),
    _row("class tower", "attention.kind=Vector factors=ab position=class_tower", _AP, 34.5, 55.6, 36.5),
    _row("box tower", "attention.kind=Vector factors=ab position=box_tower", _AP, 35.2, 56.1, 37.5),
)

ATTENTIONS = _table(
    "5.4",
    "how an instance's numbers tell its mask",
    _row("vector", "attention.kind=Vector", _TIMED, 68.7, 35.2, 56.1, 37.5),
    _row("full", "attention.kind=Full", _TIMED, 72.0, 36.2, 56.7, 38.7),
    _row("factored", "attention.kind=Factored", _TIMED, 69.2, 36.3, 56.9, 38.8),
)


def _padding(name: str, divisor: int, enlarging: str, *figures: float) -> Row:
    settings = f"divisor={divisor} detector.instance.enlarging={enlarging}"
    return _row(name, settings, _PQ, *figures, prefix="model.")


PADDING = _table(
    "5.5",
    "what sides of the input are multiples of, and how maps are enlarged",
    _padding("32", 32, "bilinear", 39.5, 46.5, 28.8),
    _padding("128", 128, "bilinear", 39.9, 46.5, 30.0),
    _padding("4, aligned", 4, "aligned", 40.0, 46.8, 29.9),
    recipe=_PANOPTIC,
)

WIDTHS = _table(
    "5.6",
    "channels of the basis features, 270,000 steps",
    _panoptic_row("32 channels", "width=32", 41.8, 49.1, 30.7),
    _panoptic_row("64 channels", "width=64", 42.9, 49.5, 32.9),
    _panoptic_row("128 channels", "width=128", 42.8, 49.5, 32.8),
    recipe="dr1mask_panoptic_r50_3x",
)

PANOPTIC_ATTENTIONS = _table(
    "5.7",
    "how an instance's numbers tell where it is, in panoptic segmentation",
    _panoptic_row("vector", "attention.kind=Vector", 40.0, 46.8, 29.9),
    _panoptic_row("factored", "attention.kind=Factored", 39.0, 46.8, 27.3),
    recipe=_PANOPTIC,
)
