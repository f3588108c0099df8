"""CondInst and BoxInst of AdelaiDet and mmdetection: their FCOS, a mask branch and the controller; only the loss differs."""

from collections.abc import Collection
from dataclasses import replace

from perpixel.engine.convert.adelaidet import ADELAIDET, FCOS_HEAD, IDLE, backbone_and_neck
from perpixel.engine.convert.layout import Layout
from perpixel.engine.convert.mmdetection import MMDETECTION_FCOS, fixed_statistics
from perpixel.models.candidates import Selection
from perpixel.models.condinst import CondInst
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.nn.layers import Pixels
from perpixel.nn.renaming import Rows, matching

INSTANCE_HEAD: Rows = (
    ("instance_head.controller.{*}", "controller.{*}"),
    ("instance_head.semantic_branch.tower.{*}", "mask_branch.seg_head.{*}"),
    ("instance_head.semantic_branch.logits.{*}", "mask_branch.logits.{*}"),
    ("instance_head.mask_branch.refine.{*}", "mask_branch.refine.{*}"),
    ("instance_head.mask_branch.tower.{*}", "mask_branch.tower.{*}"),
)


def _rows(names: Collection[str]) -> Rows:
    return (*backbone_and_neck(names), *FCOS_HEAD, *INSTANCE_HEAD)


ADELAIDET_CONDINST = Layout(
    name="adelaidet",
    marks=(*ADELAIDET.marks, "controller.weight", "mask_branch.refine.0.0.weight"),
    rows=_rows,
    base=replace(
        ADELAIDET.base, head=FCOS(center="mask"), instance=CondInst(), selection=Selection(threshold_on="product")
    ),
    adapt=ADELAIDET.adapt,
    # The divisors of the coordinates are 8 strides; the step that BoxInst's warm-up has reached is the run's own.
    unused=(*IDLE, "mask_head.sizes_of_interest", "mask_head._iter"),
    notes=(
        *ADELAIDET.notes,
        "16 mask channels are taken as BoxInst, which matters for further training only; if it was CondInst: "
        "model.instance.kind=CondInst model.instance.mask_channels=16",
    ),
)

_BRANCH = "mask_head.mask_feature_head"


def _mmdetection_rows(names: Collection[str]) -> Rows:
    convs = len(matching(names, [f"{_BRANCH}.conv_branch.{{i}}.conv.weight"]))
    branch = "instance_head.mask_branch"
    levels = [(f"{branch}.refine.{i}", f"{_BRANCH}.convs_all_levels.{i}.conv{i}") for i in range(3)]
    blocks = [*levels, (f"{branch}.tower.{{i}}", f"{_BRANCH}.conv_branch.{{i}}")]
    layers = ((".0.{*}", ".conv.{*}"), (".1.{*}", ".bn.{*}"))
    return (
        *MMDETECTION_FCOS.rows(names),
        ("instance_head.controller.{*}", "bbox_head.controller.{*}"),
        *((ours + a, theirs + b) for ours, theirs in blocks for a, b in layers),
        (f"{branch}.tower.{convs}.{{*}}", f"{_BRANCH}.conv_pred.{{*}}"),
    )


MMDETECTION_CONDINST = Layout(
    name="mmdetection",
    marks=("bbox_head.controller.weight", f"{_BRANCH}.conv_pred.weight"),
    rows=_mmdetection_rows,
    base=DetectorConfig(
        Pixels(), Backbone(weights=None), FPN(), FCOS(center="mask", iou_smoothing=0.0), CondInst(), Selection()
    ),
    adapt=fixed_statistics,
    notes=(
        "a PyTorch-style ResNet and RGB are assumed, as mmdetection's own CondInst and BoxInst have them",
        "the order of the filters' numbers (all weights, then all biases) and of their inputs (coordinates, then mask features) "
        "is taken as AdelaiDet's: mmdetection's documentation does not tell it, so look at some masks before you rely on them",
        "16 mask channels are taken as BoxInst, which matters for further training only; if it was CondInst: "
        "model.instance.kind=CondInst model.instance.mask_channels=16 model.instance.width=16",
        "scores are the square roots of mmdetection's: same order, other numbers",
    ),
)
