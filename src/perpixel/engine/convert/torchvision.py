"""FCOS and RetinaNet of torchvision."""

from collections.abc import Collection
from dataclasses import replace

from perpixel.engine.convert.layout import Layout, numbered, sequential
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.nn.layers import Pixels
from perpixel.nn.renaming import Rows
from perpixel.ops.assign import LevelRanges

# torchvision cuts anchor sizes to whole pixels.
ANCHOR_SIZES = tuple(
    (float(s), float(int(s * 2 ** (1 / 3))), float(int(s * 2 ** (2 / 3)))) for s in (32, 64, 128, 256, 512)
)

CLASSIFICATION, REGRESSION = "head.classification_head", "head.regression_head"

RESNET_AND_FPN: Rows = (
    ("backbone.body.{*}", "backbone.body.{*}"),
    ("neck.lateral.{i}.{*}", "backbone.fpn.inner_blocks.{i}.0.{*}"),
    ("neck.output.{i}.{*}", "backbone.fpn.layer_blocks.{i}.0.{*}"),
    # Names before torchvision 0.13.
    ("neck.lateral.{i}.{*}", "backbone.fpn.inner_blocks.{i}.{*}"),
    ("neck.output.{i}.{*}", "backbone.fpn.layer_blocks.{i}.{*}"),
    ("neck.top.0.{*}", "backbone.fpn.extra_blocks.p6.{*}"),
    ("neck.top.1.{*}", "backbone.fpn.extra_blocks.p7.{*}"),
    ("box_head.class_logits.{*}", f"{CLASSIFICATION}.cls_logits.{{*}}"),
)

FCOS_ROWS: Rows = (
    *RESNET_AND_FPN,
    *sequential("box_head.class_tower", f"{CLASSIFICATION}.conv"),
    *sequential("box_head.box_tower", f"{REGRESSION}.conv"),
    ("box_head.distances.{*}", f"{REGRESSION}.bbox_reg.{{*}}"),
    ("box_head.quality.{*}", f"{REGRESSION}.bbox_ctrness.{{*}}"),
)


def _fcos(names: Collection[str]) -> Rows:
    return FCOS_ROWS


def _retinanet(names: Collection[str]) -> Rows:
    normalized = f"{CLASSIFICATION}.conv.0.1.weight" in names
    return (
        *RESNET_AND_FPN,
        *numbered("box_head.class_tower", f"{CLASSIFICATION}.conv.#.0", f"{CLASSIFICATION}.conv.#.1", normalized),
        *numbered("box_head.box_tower", f"{REGRESSION}.conv.#.0", f"{REGRESSION}.conv.#.1", normalized),
        # Names before torchvision 0.13.
        *sequential("box_head.class_tower", f"{CLASSIFICATION}.conv"),
        *sequential("box_head.box_tower", f"{REGRESSION}.conv"),
        ("box_head.deltas.{*}", f"{REGRESSION}.bbox_reg.{{*}}"),
    )


def _trained_from_scratch(config: DetectorConfig, names: Collection[str]) -> DetectorConfig:
    """A backbone whose batch norms count batches was trained whole."""
    if config.backbone.norm == "frozen":
        return config
    return replace(config, backbone=replace(config.backbone, frozen_stages=0))


def _second_version(config: DetectorConfig, names: Collection[str]) -> DetectorConfig:
    """retinanet_resnet50_fpn_v2 has GroupNorm, and with it GIoU."""
    config = _trained_from_scratch(config, names)
    if not (isinstance(config.head, RetinaNet) and config.head.norm == "group"):
        return config
    return replace(config, head=replace(config.head, box_loss="giou"))


TORCHVISION_FCOS = Layout(
    name="torchvision",
    marks=(f"{REGRESSION}.bbox_ctrness.weight",),
    rows=_fcos,
    base=DetectorConfig(
        Pixels(),
        Backbone(weights=None),
        FPN(),
        FCOS(
            box_weight="none",
            iou_smoothing=0.0,
            levels=LevelRanges(inclusive=False),
            offset=0.0,
            spread=True,
        ),
        None,
        Selection(threshold=0.2, threshold_on="score", clip_first=True),
    ),
    adapt=_trained_from_scratch,
)

TORCHVISION_RETINANET = Layout(
    name="torchvision",
    marks=(f"{REGRESSION}.bbox_reg.weight",),
    rows=_retinanet,
    base=DetectorConfig(
        Pixels(),
        Backbone(weights=None),
        FPN(),
        RetinaNet(
            sizes=ANCHOR_SIZES,
            ratio_first=True,
            rounded=True,
            spread=True,
            normalization="image",
        ),
        None,
        Selection(iou=0.5, keep=300, clip_first=True),
    ),
    adapt=_second_version,
)
