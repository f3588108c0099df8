"""Tables 6.1 to 6.4 of thesis 002: what BoxInst's loss is worth. Mask AP on COCO val2017, ResNet-50, 90,000 steps.

    perpixel ablate boxinst_6.2 data=coco.yaml
    perpixel ablate boxinst_6.4 --recipe boxinst_mobilenetv2 data=my.yaml

Evaluation needs masks in data.val. Training needs them only in the rows that say data.masks=true.
"""

from perpixel.engine.ablation import Row, Table

_RECIPE = "boxinst_r50_1x_thesis"
_COLUMNS = ("mask AP", "AP50", "AP75", "APs", "APm", "APl")
_FROM_MASKS = ("data.masks=true", "model.head.center=mask")


def _row(name: str, settings: str, *figures: float, more: tuple[str, ...] = ()) -> Row:
    changed = tuple(f"model.instance.{setting}" for setting in settings.split())
    return Row(name, (*changed, *more), dict(zip(_COLUMNS, figures, strict=True)))


def _table(number: str, about: str, *rows: Row) -> Table:
    return Table(f"boxinst_{number}", f"thesis 002, table {number}, COCO val2017: {about}", _RECIPE, rows)


_KNOWN_PAIRS = (35.4, 55.9, 37.6, 17.0, 38.8, 50.7)
_DEFAULTS = (30.7, 52.2, 31.1, 13.8, 33.1, 45.7)

LOSS_FROM_MASKS = _table(
    "6.1",
    "the loss where masks are given",
    # "We replace the original Dice loss (...) and keep other settings exactly the same": where all masks are known, this is it.
    _row("Dice", "supervision=color known_masks=dice", 35.6, 56.3, 37.8, 16.9, 38.9, 51.0, more=_FROM_MASKS),
    _row("projection and pairs", "supervision=mask known_masks=unused", *_KNOWN_PAIRS, more=_FROM_MASKS),
)

TAU = _table(
    "6.2",
    "least likeness of colours",
    _row("pairs known from masks", "supervision=mask", *_KNOWN_PAIRS, more=_FROM_MASKS),
    _row("tau 0", "tau=0", 9.4, 30.3, 3.3, 7.6, 10.3, 11.4),
    _row("tau 0.1", "tau=0.1", *_DEFAULTS),
    _row("tau 0.2", "tau=0.2", 30.6, 52.6, 30.9, 13.9, 32.8, 45.5),
)

NEIGHBOURS = _table(
    "6.3",
    "which neighbours, at tau 0.1",
    _row("3x3, dilation 1", "tau=0.1 size=3 dilation=1", 29.7, 52.0, 29.6, 13.4, 32.3, 44.4),
    _row("3x3, dilation 2", "tau=0.1 size=3 dilation=2", *_DEFAULTS),
    _row("5x5, dilation 1", "tau=0.1 size=5 dilation=1", 30.5, 52.3, 30.7, 13.7, 33.0, 45.7),
    _row("5x5, dilation 2", "tau=0.1 size=5 dilation=2", 29.9, 51.9, 30.0, 13.8, 32.1, 45.0),
)

TERMS = _table(
    "6.4",
    "the terms of the loss, at tau 0.1",
    _row("Dice with the filled box", "supervision=box tau=0.1", 10.6, 32.2, 4.6, 5.7, 11.3, 15.6),
    _row("projection alone", "supervision=projection tau=0.1", 21.2, 45.2, 17.7, 10.0, 21.4, 32.5),
    _row("projection and pairs", "supervision=color tau=0.1", *_DEFAULTS),
)
