"""Tables 4.1 to 4.4 of the DirectPose chapter (thesis 002, 4.3): what its parts are worth.

    perpixel ablate directpose_4.1 data=coco.yaml
    perpixel ablate directpose_4.2 data=my.yaml --recipe directpose_mobilenetv2

Keypoint AP on COCO minival, ResNet-50. Table 4.5 compares with other methods: its own rows are recipes.
"""

from perpixel.engine.ablation import Row, Table

_COLUMNS = ("keypoint AP", "keypoint AP50", "keypoint AP75", "keypoint APm", "keypoint APl")
_NO_HEAT_MAP = "heat_map=null"


def _row(name: str, settings: str, *figures: float) -> Row:
    changed = tuple(f"model.instance.{setting}" for setting in settings.split())
    return Row(name, changed, dict(zip(_COLUMNS, figures, strict=True)))


def _align(groups: str = "body", width: str = "64", level: str = "below", aligner: str = "true") -> str:
    return (
        f"align.kind=KPAlign align.groups={groups} align.width={width} align.level={level} align.aligner={aligner}"
        f" {_NO_HEAT_MAP}"
    )


ALIGNMENT = Table(
    "directpose_4.1",
    "thesis 002, table 4.1, COCO minival: KPAlign, 25 epochs without heat maps",
    "directpose_r50",
    (
        _row("naive", f"align=null {_NO_HEAT_MAP}", 43.4, 73.8, 45.1, 38.9, 50.9),
        _row("aligner disabled", _align("none", "null", "own", "false"), 43.0, 74.2, 43.9, 39.0, 49.6),
        _row("KPAlign", _align("none", "null", "own"), 50.5, 77.6, 54.9, 44.4, 60.0),
    ),
)

DESIGN = Table(
    "directpose_4.2",
    "thesis 002, table 4.2, COCO minival: the design of KPAlign, each row with all above it, without heat maps",
    "directpose_r50",
    (
        _row("KPAlign", _align("none", "null", "own"), 50.5, 77.6, 54.9, 44.4, 60.0),
        _row("grouped", _align("body", "null", "own"), 50.6, 77.5, 55.4, 44.3, 60.2),
        _row("separate features", _align("body", "64", "own"), 51.4, 78.2, 55.6, 45.6, 60.6),
        _row("better sampling", _align(), 52.2, 78.3, 56.6, 46.3, 61.7),
    ),
)

_LONG = ("training.steps=180000", "training.batch_size=32")
HEAT_MAPS = Table(
    "directpose_4.3",
    "thesis 002, table 4.3, COCO minival: heat maps as an auxiliary task",
    "directpose_r50",
    (
        _row("none", _NO_HEAT_MAP, 52.2, 78.3, 56.6, 46.3, 61.7),
        _row("stride 16", "heat_map.kind=HeatMapTask heat_map.stride=16", 57.7, 82.8, 63.1, 51.8, 66.9),
        _row("stride 8", "heat_map.kind=HeatMapTask heat_map.stride=8", 58.0, 82.5, 63.3, 52.7, 66.6),
        Row(
            "stride 8, 100 epochs",
            ("model.instance.heat_map.kind=HeatMapTask", "model.instance.heat_map.stride=8", *_LONG),
            dict(zip(_COLUMNS, (63.1, 85.6, 68.8, 57.7, 71.3), strict=True)),
        ),
    ),
)

BOXES = Table(
    "directpose_4.4",
    "thesis 002, table 4.4, COCO minival: with FCOS's boxes, 100 epochs",
    "directpose_r50_boxes_long",
    (
        Row(
            "keypoints alone",
            (
                "model.head.box_loss=none",
                "model.instance.boxes=keypoints",
                "model.instance.convs=0",
                "model.duplicates.kind=KeypointNMS",
            ),
            {"keypoint AP": 63.1, "keypoint AP50": 85.6, "keypoint AP75": 68.8},
        ),
        Row(
            "with boxes",
            (
                "model.head.box_loss=giou",
                "model.instance.boxes=annotated",
                "model.instance.convs=4",
                "model.duplicates.kind=BoxNMS",
            ),
            {
                "box AP": 55.3,
                "box AP50": 81.5,
                "box AP75": 59.9,
                "keypoint AP": 61.5,
                "keypoint AP50": 84.3,
                "keypoint AP75": 67.5,
            },
        ),
    ),
)
