"""FCOS and RetinaNet of mmdetection."""

from collections.abc import Collection
from dataclasses import replace

from perpixel.engine.convert.fcos_original import CAFFE
from perpixel.engine.convert.layout import Layout, numbered
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.nn.layers import Pixels
from perpixel.nn.renaming import Rows

RESNET: Rows = (
    ("backbone.body.layer{i}.{j}.conv2.offset.{*}", "backbone.layer{i}.{j}.conv2.conv_offset.{*}"),
    ("backbone.body.{*}", "backbone.{*}"),
    *((f"neck.lateral.{i}.{{*}}", f"neck.lateral_convs.{i}.conv.{{*}}") for i in range(3)),
    *((f"neck.output.{i}.{{*}}", f"neck.fpn_convs.{i}.conv.{{*}}") for i in range(3)),
    *((f"neck.top.{i}.{{*}}", f"neck.fpn_convs.{i + 3}.conv.{{*}}") for i in range(2)),
)


def _towers(names: Collection[str]) -> Rows:
    normalized = "bbox_head.cls_convs.0.gn.weight" in names
    towers = (("class_tower", "cls_convs"), ("box_tower", "reg_convs"))
    both = (
        numbered(f"box_head.{ours}", f"bbox_head.{theirs}.#.conv", f"bbox_head.{theirs}.#.gn", normalized)
        for ours, theirs in towers
    )
    return tuple(row for rows in both for row in rows)


def _fcos(names: Collection[str]) -> Rows:
    return (
        *RESNET,
        *_towers(names),
        ("box_head.class_logits.{*}", "bbox_head.conv_cls.{*}"),
        ("box_head.distances.{*}", "bbox_head.conv_reg.{*}"),
        ("box_head.quality.{*}", "bbox_head.conv_centerness.{*}"),
        ("box_head.scales.{i}.scale", "bbox_head.scales.{i}.scale"),
    )


def _retinanet(names: Collection[str]) -> Rows:
    return (
        *RESNET,
        *_towers(names),
        ("box_head.class_logits.{*}", "bbox_head.retina_cls.{*}"),
        ("box_head.deltas.{*}", "bbox_head.retina_reg.{*}"),
    )


def fixed_statistics(config: DetectorConfig, names: Collection[str]) -> DetectorConfig:
    """Batch norms are frozen although they count batches; ResNeXts are PyTorch's."""
    config = replace(config, backbone=replace(config.backbone, norm="frozen"))
    return replace(config, pixels=Pixels()) if config.backbone.name.startswith("resnext") else config


def _improved_fcos(config: DetectorConfig, names: Collection[str]) -> DetectorConfig:
    """Of mmdetection's configs, those with biases beside GroupNorm are the improved ones ("center-normbbox-centeronreg-giou")."""
    config = fixed_statistics(config, names)
    if "bbox_head.cls_convs.0.conv.bias" not in names:
        return config
    assert isinstance(config.head, FCOS)
    head = replace(config.head, activation="relu", quality_tower="box", radius=1.5, box_loss="giou")
    return replace(config, head=head, selection=replace(config.selection, iou=0.6))


MMDETECTION_FCOS = Layout(
    name="mmdetection",
    marks=("bbox_head.conv_centerness.weight",),
    rows=_fcos,
    base=DetectorConfig(
        CAFFE,
        Backbone(stride_in_1x1=True, weights=None),
        FPN(),
        FCOS(activation="exp", quality_tower="class", radius=None, box_loss="iou", iou_smoothing=0.0),
        None,
        Selection(iou=0.5),
    ),
    adapt=_improved_fcos,
    notes=(
        "distances, centre-ness and sampling are taken as fcos_r50-caffe_fpn_gn-head_1x has them, or, where the towers have "
        "biases, as -center-normbbox-centeronreg-giou has them; for -center alone: model.head.radius=1.5",
        "a Caffe-style ResNet is assumed; for a PyTorch-style one: model.backbone.stride_in_1x1=false model.pixels.order=rgb "
        "model.pixels.mean=[123.675,116.28,103.53] model.pixels.std=[58.395,57.12,57.375]",
        "scores are the square roots of mmdetection's: same order, other numbers",
    ),
)

MMDETECTION_RETINANET = Layout(
    name="mmdetection",
    marks=("bbox_head.retina_cls.weight",),
    rows=_retinanet,
    base=DetectorConfig(
        Pixels(), Backbone(weights=None), FPN(top_relu=False), RetinaNet(ratio_first=True), None, Selection(iou=0.5)
    ),
    adapt=fixed_statistics,
    notes=(
        "a PyTorch-style ResNet is assumed; for a Caffe-style one: model.backbone.stride_in_1x1=true model.pixels.order=bgr "
        "model.pixels.mean=[123.675,116.28,103.53] model.pixels.std=[1,1,1]",
    ),
)
