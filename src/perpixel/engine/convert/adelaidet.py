"""FCOS of AdelaiDet, FCOS and RetinaNet of detectron2, which it builds on: one backbone and neck, three heads."""

import re
from collections.abc import Collection
from dataclasses import replace

from perpixel.engine.convert.layout import Layout, sequential
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.nn.layers import Pixels
from perpixel.nn.renaming import DETECTRON2_RESNET, Rows, with_prefix
from perpixel.nn.vovnet import vovnet_rows
from perpixel.ops.assign import LevelRanges

MSRA = Pixels(std=(1.0, 1.0, 1.0), order="bgr")
"""The ResNets of Microsoft Research: BGR, mean subtracted, no division."""
RESNEXT_STD = (58.395, 57.12, 57.375)

ADELAIDET_HEAD = "proposal_generator.fcos_head."

PIXEL_STATISTICS = ("pixel_mean", "pixel_std", "{*}.pixel_mean", "{*}.pixel_std")
IDLE = (*PIXEL_STATISTICS, "backbone.body.level{i}.project.{*}")
"""Entries that carry nothing: pixel statistics, which settings hold, and two projections of DLA whose results nobody reads."""

FPN_ROWS: Rows = (
    *(
        (f"neck.{ours}.{i}.{{*}}", f"backbone.fpn_{ours}{level}.{{*}}")
        for ours in ("lateral", "output")
        for i, level in enumerate((3, 4, 5))
    ),
    ("neck.top.0.{*}", "backbone.top_block.p6.{*}"),
    ("neck.top.1.{*}", "backbone.top_block.p7.{*}"),
)

FCOS_HEAD: Rows = (
    *sequential("box_head.class_tower", f"{ADELAIDET_HEAD}cls_tower"),
    *sequential("box_head.box_tower", f"{ADELAIDET_HEAD}bbox_tower"),
    *sequential("box_head.shared_tower", f"{ADELAIDET_HEAD}share_tower"),
    ("box_head.class_logits.{*}", f"{ADELAIDET_HEAD}cls_logits.{{*}}"),
    ("box_head.distances.{*}", f"{ADELAIDET_HEAD}bbox_pred.{{*}}"),
    ("box_head.quality.{*}", f"{ADELAIDET_HEAD}ctrness.{{*}}"),
    # The name in old files.
    ("box_head.quality.{*}", f"{ADELAIDET_HEAD}centerness.{{*}}"),
    ("box_head.scales.{i}.scale", f"{ADELAIDET_HEAD}scales.{{i}}.scale"),
)

DLA: Rows = (("base_layer.{*}", "base_layer.{*}"), ("level{i}.{*}", "level{i}.{*}"))
"""timm has the names of DLA's authors, as AdelaiDet has."""

BODY = "backbone.bottom_up."
BIFPN_BODY = "backbone.bottom_up.backbone."
BIFPN_CELL = "backbone.repeated_bifpn."


def backbone_and_neck(names: Collection[str]) -> Rows:
    """Rows of the ResNet, DLA or VoVNet, and of the FPN or the BiFPN that the names tell.

    They number a BiFPN's maps as they arise: inputs, then results of the way down, then of the way up. A sum is called after its
    level and the numbers of what it adds.
    """
    levels = {int(found[1]) for name in names if (found := re.search(r"repeated_bifpn\.0\.weights_f(\d+)_", name))}
    if not levels:
        return (*_body(names, BODY), *FPN_ROWS)
    count = len(levels)
    down = [(f"down.{level}", f"f{level}_{level}_{2 * count - 3 - level}") for level in range(count - 1)]
    up = [
        (f"up.{level - 1}", f"f{level}_{level}_{2 * count - 2 - level}_{2 * count - 3 + level}")
        for level in range(1, count - 1)
    ]
    last = (f"up.{count - 2}", f"f{count - 1}_{count - 1}_{3 * count - 4}")
    fusions = [
        row
        for ours, theirs in (*down, *up, last)
        for row in (
            (f"neck.cells.{{i}}.{ours}.weights", f"{BIFPN_CELL}{{i}}.weights_{theirs}"),
            *_conv_norm(f"neck.cells.{{i}}.{ours}.output", f"{BIFPN_CELL}{{i}}.outputs_{theirs}"),
        )
    ]
    laterals = [row for i in range(count) for row in _conv_norm(f"neck.lateral.{i}", f"{BIFPN_CELL}0.lateral_{i}_f{i}")]
    return (
        *_body(names, BIFPN_BODY),
        *_conv_norm("neck.reduction", "backbone.bottom_up.res6.reduction"),
        *laterals,
        *fusions,
    )


def _body(names: Collection[str], theirs: str) -> Rows:
    if f"{theirs}base_layer.0.weight" in names:
        return with_prefix(DLA, "backbone.body.", theirs)
    return with_prefix(vovnet_rows(names) or DETECTRON2_RESNET, "backbone.body.", theirs)


def _conv_norm(ours: str, theirs: str) -> Rows:
    return (f"{ours}.1.{{*}}", f"{theirs}.norm.{{*}}"), (f"{ours}.0.{{*}}", f"{theirs}.{{*}}")


DETECTRON2_ROWS: Rows = (
    *_body((), BODY),
    *FPN_ROWS,
    *sequential("box_head.class_tower", "head.cls_subnet"),
    *sequential("box_head.box_tower", "head.bbox_subnet"),
    ("box_head.class_logits.{*}", "head.cls_score.{*}"),
)
DETECTRON2_FCOS_ROWS: Rows = (
    *DETECTRON2_ROWS,
    ("box_head.distances.{*}", "head.bbox_pred.{*}"),
    ("box_head.quality.{*}", "head.ctrness.{*}"),
)
DETECTRON2_RETINANET_ROWS: Rows = (*DETECTRON2_ROWS, ("box_head.deltas.{*}", "head.bbox_pred.{*}"))


def _adelaidet(names: Collection[str]) -> Rows:
    return (*backbone_and_neck(names), *FCOS_HEAD)


def _detectron2_fcos(names: Collection[str]) -> Rows:
    return DETECTRON2_FCOS_ROWS


def _detectron2_retinanet(names: Collection[str]) -> Rows:
    return DETECTRON2_RETINANET_ROWS


def with_resnext_pixels(config: DetectorConfig, names: Collection[str]) -> DetectorConfig:
    """The 32x8d ResNeXt was trained on pixels divided by their deviation."""
    if not config.backbone.name.startswith("resnext101_32x8d"):
        return config
    return replace(config, pixels=replace(config.pixels, std=RESNEXT_STD))


ADELAIDET = Layout(
    name="adelaidet",
    marks=(f"{ADELAIDET_HEAD}cls_logits.weight",),
    rows=_adelaidet,
    base=DetectorConfig(MSRA, Backbone(stride_in_1x1=True, weights=None), FPN(), FCOS(), None, Selection()),
    adapt=with_resnext_pixels,
    unused=IDLE,
    notes=(
        "the quality branch is taken as centre-ness; if it was trained on IoU: model.head.quality=iou model.head.box_weight=none",
    ),
)

DETECTRON2_FCOS = Layout(
    name="detectron2",
    marks=("head.ctrness.weight",),
    rows=_detectron2_fcos,
    base=DetectorConfig(
        MSRA,
        Backbone(stride_in_1x1=True, weights=None),
        FPN(),
        FCOS(
            box_weight="none",
            iou_smoothing=0.0,
            levels=LevelRanges(inclusive=False),
            normalization="moving",
            normalization_start=300.0,
        ),
        None,
        Selection(threshold=0.2, threshold_on="score"),
    ),
    adapt=with_resnext_pixels,
    unused=(*PIXEL_STATISTICS, "anchor_generator.cell_anchors.{i}"),
)

DETECTRON2_RETINANET = Layout(
    name="detectron2",
    marks=("head.cls_subnet.0.weight",),
    rows=_detectron2_retinanet,
    base=DetectorConfig(
        MSRA,
        Backbone(stride_in_1x1=True, weights=None),
        FPN(),
        RetinaNet(normalization="moving", normalization_start=100.0),
        None,
        Selection(iou=0.5),
    ),
    adapt=with_resnext_pixels,
    unused=(*PIXEL_STATISTICS, "anchor_generator.cell_anchors.{i}"),
)
