"""Tables 5.1 to 5.6 of thesis 002: what CondInst's parts are worth. Mask AP on COCO val2017, ResNet-50, 90,000 steps.

    perpixel ablate condinst_5.1 data=coco.yaml
    perpixel ablate condinst_5.1 --recipe condinst_mobilenetv2 data=my.yaml

The row "masks" of table 5.6 trains without a box branch, as `condinst_r50_1x_mask_nms` does.
"""

from perpixel.engine.ablation import Row, Table

_RECIPE = "condinst_r50_1x_thesis"
_COLUMNS = ("mask AP", "AP50", "AP75", "APs", "APm", "APl")
_DEFAULTS = (35.7, 56.3, 37.8, 17.1, 39.1, 50.2)


def _row(name: str, settings: str, *figures: float) -> Row:
    changed = tuple(f"model.instance.{setting}" for setting in settings.split())
    return Row(name, changed, dict(zip(_COLUMNS, figures, strict=True)))


def _table(number: str, about: str, *rows: Row) -> Table:
    return Table(f"condinst_{number}", f"thesis 002, table {number}, COCO val2017: {about}", _RECIPE, rows)


DEPTH = _table(
    "5.1",
    "layers of the mask network",
    _row("one layer", "depth=1", 30.9, 52.9, 31.4, 14.0, 33.3, 45.1),
    _row("two layers", "depth=2", 35.5, 56.1, 37.8, 17.0, 38.9, 50.8),
    _row("three layers", "depth=3", *_DEFAULTS),
    _row("four layers", "depth=4", 35.7, 56.2, 37.9, 17.2, 38.7, 51.5),
)

WIDTH = _table(
    "5.2",
    "channels of the mask network",
    _row("2 channels", "width=2", 34.1, 55.4, 35.8, 15.9, 37.2, 49.1),
    _row("4 channels", "width=4", 35.6, 56.5, 38.1, 17.0, 39.2, 51.4),
    _row("8 channels", "width=8", *_DEFAULTS),
    _row("16 channels", "width=16", 35.6, 56.2, 37.9, 17.2, 38.8, 50.8),
)

MASK_CHANNELS = _table(
    "5.3",
    "channels of the mask branch's output",
    _row("1 mask channel", "mask_channels=1", 34.8, 55.9, 36.9, 16.7, 38.0, 50.1),
    _row("2 mask channels", "mask_channels=2", 35.4, 56.2, 37.6, 16.9, 38.9, 50.4),
    _row("4 mask channels", "mask_channels=4", 35.5, 56.2, 37.9, 17.0, 39.0, 50.8),
    _row("8 mask channels", "mask_channels=8", *_DEFAULTS),
    _row("16 mask channels", "mask_channels=16", 35.5, 56.1, 37.7, 16.4, 39.1, 51.2),
)

COORDINATES = _table(
    "5.4",
    "input of the mask network",
    _row("mask channels alone", "coordinates=none mask_channels=8", 31.4, 53.5, 32.1, 15.6, 34.4, 44.7),
    _row("relative coordinates alone", "coordinates=relative mask_channels=0", 31.3, 54.9, 31.8, 16.0, 34.2, 43.6),
    _row(
        "mask channels and absolute coordinates",
        "coordinates=absolute mask_channels=8",
        32.0,
        53.3,
        32.9,
        14.7,
        34.2,
        46.8,
    ),
    _row("mask channels and relative coordinates", "coordinates=relative mask_channels=8", *_DEFAULTS),
)

UPSAMPLING = _table(
    "5.5",
    "how much the logits are enlarged",
    _row("not enlarged", "upsampling=1", 34.4, 55.4, 36.2, 15.1, 38.4, 50.8),
    _row("by 2", "upsampling=2", 35.8, 56.4, 38.0, 17.0, 39.3, 51.1),
    _row("by 4", "upsampling=4", *_DEFAULTS),
)

_WITHOUT_BOXES = ("model.head.box_loss=none", "model.duplicates.kind=MaskNMS")

DUPLICATES = Table(
    "condinst_5.6",
    "thesis 002, table 5.6, COCO val2017: what duplicates are told by",
    _RECIPE,
    (
        Row("boxes", ("model.duplicates.kind=BoxNMS",), dict(zip(_COLUMNS, _DEFAULTS, strict=True))),
        Row("masks", _WITHOUT_BOXES, dict(zip(_COLUMNS, (35.7, 56.7, 37.7, 17.2, 39.2, 50.5), strict=True))),
    ),
)
