"""Tables 4.1 to 4.7 of thesis 004: what BlendMask's parts are worth. Mask AP on COCO val2017, ResNet-50, 90,000 steps at 800.

    perpixel ablate blendmask_4.1 data=coco.yaml
    perpixel ablate blendmask_4.1 --recipe blendmask_mobilenetv2 data=my.yaml

Tables 4.1 to 4.3 stand on C3 and C5, the later ones on P3 and P5, as the chapter goes on; every row names all that it differs
in from its table's recipe. Row "stride 4" of table 4.7 has a pyramid with P2, which only the bottom module reads. Times are the
thesis's, ms on one 1080Ti.
"""

from perpixel.engine.ablation import Row, Table

_RECIPE = "blendmask_r50_1x_56_4_7"
_BACKBONE = "bottom.kind=DeepLabV3Plus bottom.reads=backbone"
_PYRAMID = "bottom.kind=DeepLabV3Plus bottom.reads=pyramid"
_AUXILIARY = "semantic_weight=0.3"


def _row(name: str, settings: str, columns: str, *figures: float, model: tuple[str, ...] = ()) -> Row:
    changed = (*(f"model.instance.{setting}" for setting in settings.split()), *model)
    return Row(name, changed, dict(zip(columns.split(","), figures, strict=True)))


def _table(number: str, about: str, *rows: Row) -> Table:
    return Table(f"blendmask_{number}", f"thesis 004, table {number}, COCO val2017: {about}", _RECIPE, rows)


_THREE = "mask AP,AP50,AP75"
_SIZES = "ms,mask AP,APs,APm,APl"
_TIMED = "ms,mask AP,AP50,AP75"
_BOXES = "ms,box AP,mask AP,AP50,AP75"

MERGING = _table(
    "4.1",
    "how bases and attentions are merged, 28_4_4",
    _row("weighted sum", "region=28 bases=4 attention=1 merging=attention", _THREE, 29.7, 52.2, 30.1),
    _row("assembler", "region=28 bases=16 attention=4 merging=fixed", _THREE, 30.3, 52.5, 31.3),
    _row("blender", "region=28 bases=4 attention=4 merging=attention", _THREE, 31.6, 53.4, 33.3),
)

RESOLUTIONS = _table(
    "4.2",
    "cells of the cut bases (R) and of the attentions (M)",
    _row("28, 2", "region=28 attention=2", _SIZES, 72.7, 30.6, 14.3, 34.1, 42.5),
    _row("28, 4", "region=28 attention=4", _SIZES, 72.9, 31.6, 14.8, 35.2, 45.0),
    _row("28, 7", "region=28 attention=7", _SIZES, 73.9, 32.0, 15.3, 35.6, 45.0),
    _row("56, 4", "region=56 attention=4", _SIZES, 72.9, 32.5, 14.9, 36.1, 46.0),
    _row("56, 7", "region=56 attention=7", _SIZES, 74.1, 33.1, 15.1, 36.6, 47.7),
    _row("56, 14", "region=56 attention=14", _SIZES, 77.7, 33.3, 16.3, 36.8, 47.4),
)

BASES = _table(
    "4.3",
    "number of bases, 56_K_7",
    _row("1 basis", "bases=1", _THREE, 30.6, 52.9, 31.6),
    _row("2 bases", "bases=2", _THREE, 31.2, 53.4, 32.3),
    _row("4 bases", "bases=4", _THREE, 33.1, 54.1, 34.9),
    _row("8 bases", "bases=8", _THREE, 33.0, 53.9, 34.9),
)

FEATURES = _table(
    "4.4",
    "what the bottom module reads",
    _row("C3, C5, M = 7", f"{_BACKBONE} attention=7", _TIMED, 74.1, 33.1, 54.1, 34.9),
    _row("C3, C5, M = 14", f"{_BACKBONE} attention=14", _TIMED, 77.7, 33.3, 54.1, 35.3),
    _row("P3, P5, M = 7", f"{_PYRAMID} attention=7", _TIMED, 72.5, 33.3, 54.2, 35.3),
    _row("P3, P5, M = 14", f"{_PYRAMID} attention=14", _TIMED, 76.4, 33.4, 54.3, 35.5),
)

ENLARGING = _table(
    "4.5",
    "interpolation of the attentions, on P3 and P5",
    _row("nearest, M = 7", f"{_PYRAMID} enlarging=nearest attention=7", _THREE, 33.3, 54.2, 35.3),
    _row("nearest, M = 14", f"{_PYRAMID} enlarging=nearest attention=14", _THREE, 33.4, 54.3, 35.5),
    _row("bilinear, M = 7", f"{_PYRAMID} enlarging=bilinear attention=7", _THREE, 33.5, 54.3, 35.7),
    _row("bilinear, M = 14", f"{_PYRAMID} enlarging=bilinear attention=14", _THREE, 33.6, 54.6, 35.6),
)

_SMALL, _LARGE = "region=28 attention=7 enlarging=bilinear", "region=56 attention=14 enlarging=bilinear"

CUTTING = _table(
    "4.6",
    "sampling of the bases, on P3 and P5",
    _row("nearest, 28, 7", f"{_PYRAMID} cutting=nearest {_SMALL}", _THREE, 30.5, 53.0, 31.6),
    _row("nearest, 56, 14", f"{_PYRAMID} cutting=nearest {_LARGE}", _THREE, 31.9, 53.6, 33.4),
    _row("bilinear, 28, 7", f"{_PYRAMID} cutting=bilinear {_SMALL}", _THREE, 32.4, 54.4, 34.5),
    _row("bilinear, 56, 14", f"{_PYRAMID} cutting=bilinear {_LARGE}", _THREE, 33.6, 54.6, 35.6),
)

_P2 = ("model.backbone.stages=[4,8,16,32]", "model.box_stride=8")
_WIDE = f"{_PYRAMID} {_LARGE} {_AUXILIARY} bottom.width=256"

OTHERS = _table(
    "4.7",
    "other improvements and bottom modules, 56_4_14",
    _row("DeepLabV3+", f"{_PYRAMID} {_LARGE} semantic_weight=0.0", _BOXES, 76.5, 38.8, 33.6, 54.6, 35.6),
    _row("semantic loss", f"{_PYRAMID} {_LARGE} {_AUXILIARY}", _BOXES, 76.5, 39.2, 34.2, 54.9, 36.4),
    _row("256 channels", _WIDE, _BOXES, 78.5, 39.1, 34.3, 54.9, 36.6),
    _row("stride 4", f"{_WIDE} bottom.fine=4", _BOXES, 86.4, 39.2, 34.4, 55.0, 36.8, model=_P2),
    _row("Proto-P3", f"bottom.kind=ProtoNet {_LARGE} {_AUXILIARY}", _BOXES, 85.2, 39.0, 34.4, 54.9, 36.8),
    _row(
        "Proto-FPN", f"bottom.kind=ProtoFPN {_LARGE} {_AUXILIARY} bottom.convs=2", _BOXES, 78.8, 39.1, 34.4, 54.9, 36.8
    ),
)
