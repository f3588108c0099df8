"""Tables 3.1 to 3.6 of thesis 004: what SmalMask's parts are worth. Mask AP on COCO val2017, ResNet-50, 90,000 steps.

    perpixel ablate smalmask_3.1 data=coco.yaml
    perpixel ablate smalmask_3.3 data=my.yaml training.steps=3000 model.instance.truth_steps=3000 --recipe smalmask_mobilenetv2

Table 3.6 has two models and so two names here: `smalmask_3.6`, `smalmask_3.6_rt`. The base of table 3.5, 30.8 AP, is no row of
another table: the thesis does not say what else differs. Table 3.4's longer L is 128; the text calls it 80.
"""

from perpixel.engine.ablation import Row, Table

_MODEL, _MODEL2 = "smalmask_r50_1x", "smalmask2_r50_1x"
_THREE = ("mask AP", "AP50", "AP75")
_SIZES = ("mask AP", "APs", "APm", "APl")
_DEFAULTS = (31.3, 53.4, 32.7)


def _row(name: str, settings: str, *figures: float, columns: tuple[str, ...] = _THREE) -> Row:
    """`settings` are those of the instance head unless they begin otherwise."""
    changed = tuple(
        f"model.{setting}" if setting.startswith(("head.", "backbone.")) else f"model.instance.{setting}"
        for setting in settings.split()
    )
    return Row(name, changed, dict(zip(columns, figures, strict=True)))


def _table(number: str, about: str, *rows: Row, recipe: str = _MODEL) -> Table:
    source = f"thesis 004, table {number.partition('_')[0]}, COCO val2017: {about}"
    return Table(f"smalmask_{number}", source, recipe, rows)


PREDICTORS = _table(
    "3.1",
    "what the mask predictor reads, with a tower of its own or the box tower",
    _row("Conv, separate", "predictor=conv convs=4", 29.2, 52.3, 29.5),
    _row("Conv, shared", "predictor=conv convs=0", 29.0, 52.3, 28.7),
    _row("DefConv, separate", "predictor=def_conv convs=4", 29.7, 52.6, 30.4),
    _row("DefConv, shared", "predictor=def_conv convs=0", 29.6, 52.6, 29.9),
    _row("RoIConv, separate", "predictor=roi_conv convs=4", 30.6, 53.4, 31.5),
    _row("RoIPred, separate", "predictor=roi_pred convs=4", *_DEFAULTS),
    _row("RoIPred, shared", "predictor=roi_pred convs=0", 30.8, 53.7, 31.8),
)

KERNEL = _table(
    "3.2",
    "samples a side",
    _row("3x3", "kernel=3", 30.9, 53.2, 32.0, 88.0, columns=(*_THREE, "ms, 1080 Ti")),
    _row("5x5", "kernel=5", *_DEFAULTS, 115.0, columns=(*_THREE, "ms, 1080 Ti")),
    _row("7x7", "kernel=7", 31.4, 53.7, 32.8, 153.0, columns=(*_THREE, "ms, 1080 Ti")),
)

TEACHER_FORCING = _table(
    "3.3",
    "boxes that guide the samples in training",
    _row("w/o", "truth=without", 30.4, 52.9, 31.5),
    _row("random", "truth=random", 30.4, 52.9, 31.5),
    _row("fix", "truth=fix", 30.4, 53.0, 31.5),
    _row("w/", "truth=with", *_DEFAULTS),
)

_64 = "head.levels.limits=[64,128,256,512]"
_128 = "head.levels.limits=[128,256,512,1024]"
_48 = "head.levels.limits=[48,96,192,384]"

LEVELS = _table(
    "3.4",
    "levels that are sampled, and the canonical length of the detector's levels",
    _row("P3-P7", f"levels=own kernel=5 {_64}", 31.3, 15.5, 34.4, 43.5, columns=_SIZES),
    _row("P3-P6, P6", f"levels=top_below kernel=5 {_64}", 31.1, 15.2, 34.4, 43.2, columns=_SIZES),
    _row("P3, P3-P6", f"levels=below kernel=5 {_64}", 31.7, 15.3, 34.9, 44.3, columns=_SIZES),
    _row("P3, P3-P6, 7x7", f"levels=below kernel=7 {_64}", 31.7, 15.5, 35.0, 44.6, columns=_SIZES),
    _row("P3, P3-P6, L 128", f"levels=below kernel=5 {_128}", 31.4, 15.2, 35.1, 43.7, columns=_SIZES),
    _row("P3, P3-P6, L 48", f"levels=below kernel=5 {_48}", 31.6, 15.0, 35.1, 44.3, columns=_SIZES),
)

BLUR = _table(
    "3.5",
    "blurred strides and trained batch norms in the backbone",
    _row("Conv, freeze", "backbone.blur=null backbone.norm=frozen", 30.8, 53.0, 32.2),
    _row("Conv, train", "backbone.blur=null backbone.norm=train", 31.4, 53.8, 32.4),
    _row("BlurConv, freeze", "backbone.blur=3 backbone.norm=frozen", 31.4, 54.1, 32.8),
    _row("BlurConv, train", "backbone.blur=3 backbone.norm=train", 31.9, 54.5, 33.4),
)

POOLERS = _table(
    "3.6",
    "canonical lengths of SmalMask2's poolers",
    _row("L 96", "lengths=[96]", 32.3, 15.9, 35.4, 45.4, columns=_SIZES),
    _row("L 128", "lengths=[128]", 32.1, 16.1, 35.3, 44.9, columns=_SIZES),
    _row("L 64, 128", "lengths=[64,128]", 32.5, 16.5, 35.6, 45.1, columns=_SIZES),
    recipe=_MODEL2,
)

POOLERS_RT = _table(
    "3.6_rt",
    "canonical lengths of SmalMask2-RT's poolers",
    _row("L 128", "lengths=[128]", 29.0, 12.9, 31.9, 43.0, columns=_SIZES),
    _row("L 64, 128", "lengths=[64,128]", 29.5, 11.8, 32.4, 44.1, columns=_SIZES),
    recipe="smalmask2_rt_r50_1x",
)
