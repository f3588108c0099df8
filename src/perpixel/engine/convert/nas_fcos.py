"""NAS-FCOS: of its first code (Lausannen/NAS-FCOS, on maskrcnn-benchmark), and of mmdetection."""

from collections.abc import Collection
from dataclasses import replace

from perpixel.engine.convert.adelaidet import MSRA
from perpixel.engine.convert.backbone import Weights
from perpixel.engine.convert.fcos_original import CAFFE
from perpixel.engine.convert.layout import Layout, sequential
from perpixel.engine.convert.mmdetection import MMDETECTION_FCOS, fixed_statistics
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.models.retinanet import RetinaNet
from perpixel.nn.backbones import Backbone
from perpixel.nn.cells import SearchedFPN
from perpixel.nn.head_cells import NAS_FCOS_HEAD
from perpixel.nn.renaming import Rows, matching

_HEAD = "decoder.rpn.head."
_TOWERS = (("class_tower", "cls"), ("box_tower", "reg"))
MOBILENET_STAGES = (1, 2, 3, 4, 3, 3, 1)
"""Blocks of MobileNetV2's stages; torchvision and its kin number them through."""


def _mobilenet() -> Rows:
    """MobileNetV2 of timm, and with convolutions and norms in rows: expansion, but in the first, depthwise, projection."""
    body, theirs = "backbone.body", "encoder.body.features"
    rows = [(f"{body}.conv_stem.{{*}}", f"{theirs}.0.0.{{*}}"), (f"{body}.bn1.{{*}}", f"{theirs}.0.1.{{*}}")]
    number = 0
    for stage, blocks in enumerate(MOBILENET_STAGES):
        for block in range(blocks):
            number += 1
            names = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
            for i, name in enumerate(names):
                ours = f"{body}.blocks.{stage}.{block}"
                rows.append((f"{ours}.{name}.{{*}}", f"{theirs}.{number}.conv.{3 * i}.{{*}}"))
                rows.append((f"{ours}.bn{i + 1}.{{*}}", f"{theirs}.{number}.conv.{3 * i + 1}.{{*}}"))
    return tuple(rows)


_BACKBONE_AND_NECK: Rows = (
    *_mobilenet(),
    ("backbone.body.bn1.{*}", "encoder.body.stem.bn1.{*}"),
    ("backbone.body.conv1.{*}", "encoder.body.stem.conv1.{*}"),
    ("backbone.body.layer{i}.{*}", "encoder.body.layer{i}.{*}"),
    *((f"neck.adapt.{place}.{{*}}", f"decoder.fpn.adapt{place + 1}.{{*}}") for place in (1, 2, 3)),
    ("neck.blocks.{i}.operations.{j}.0.offset.{*}", "decoder.fpn._ops.{i}.{j}.dcn.0.conv_offset_mask.{*}"),
    ("neck.blocks.{i}.operations.{j}.{k}.{*}", "decoder.fpn._ops.{i}.{j}.dcn.{k}.{*}"),
    ("neck.blocks.{i}.join.norm.{*}", "decoder.fpn._ops.{i}.2.conv1x1.0.{*}"),
    ("neck.blocks.{i}.join.conv.{*}", "decoder.fpn._ops.{i}.2.conv1x1.2.{*}"),
    ("neck.top.0.{*}", "decoder.fpn.top_blocks.p6.{*}"),
    ("neck.top.1.{*}", "decoder.fpn.top_blocks.p7.{*}"),
)
_FOUND_TOWERS: Rows = tuple(
    row
    for ours, theirs in _TOWERS
    for row in (
        (
            f"box_head.{ours}.shared.{{i}}.0.offset.{{*}}",
            f"{_HEAD}_{theirs}_head_global_ops.{{i}}.dcn.0.conv_offset_mask.{{*}}",
        ),
        (f"box_head.{ours}.shared.{{i}}.{{j}}.{{*}}", f"{_HEAD}_{theirs}_head_global_ops.{{i}}.dcn.{{j}}.{{*}}"),
        (f"box_head.{ours}.shared.{{i}}.{{j}}.{{*}}", f"{_HEAD}_{theirs}_head_global_ops.{{i}}.{{j}}.{{*}}"),
    )
)
_HEAD_ROWS: Rows = (
    *sequential("box_head.class_tower", f"{_HEAD}cls_tower"),
    *sequential("box_head.box_tower", f"{_HEAD}bbox_tower"),
    *_FOUND_TOWERS,
    ("box_head.class_logits.{*}", f"{_HEAD}cls_logits.{{*}}"),
    ("box_head.quality.{*}", f"{_HEAD}centerness.{{*}}"),
    ("box_head.scales.{i}.scale", f"{_HEAD}scales.{{i}}.scale"),
)


def _fcos(names: Collection[str]) -> Rows:
    return (*_BACKBONE_AND_NECK, *_HEAD_ROWS, ("box_head.distances.{*}", f"{_HEAD}bbox_pred.{{*}}"))


def _retinanet(names: Collection[str]) -> Rows:
    return (*_BACKBONE_AND_NECK, *_HEAD_ROWS, ("box_head.deltas.{*}", f"{_HEAD}bbox_pred.{{*}}"))


_BASE = DetectorConfig(
    CAFFE,
    Backbone(stride_in_1x1=True, weights=None),
    SearchedFPN(),
    FCOS(
        activation="exp",
        quality_tower="class",
        radius=None,
        box_loss="iou",
        iou_unit="pixel",
        count_images=True,
    ),
    None,
    Selection(),
)
# C2's map at the pyramid's width, which no block takes.
_IDLE = ("decoder.fpn.adapt1.{*}",)
_NOTES = (
    "the pyramid's connections are those that the thesis found: names and shapes do not tell them",
    "scores are the square roots of theirs: same order, other numbers",
)

NAS_FCOS = Layout(
    name="nas_fcos",
    marks=("decoder.fpn.adapt4.0.weight", f"{_HEAD}centerness.weight"),
    rows=_fcos,
    base=_BASE,
    unused=_IDLE,
    notes=_NOTES,
    exact_frozen_norms=True,
)

NAS_RETINANET = Layout(
    name="nas_fcos",
    marks=("decoder.fpn.adapt4.0.weight",),
    rows=_retinanet,
    base=replace(_BASE, head=RetinaNet(), selection=Selection(iou=0.5)),
    unused=(*_IDLE, "decoder.rpn.anchor_generator.cell_anchors.{i}"),
    notes=_NOTES[:1],
    exact_frozen_norms=True,
)


def _mmdetection(names: Collection[str]) -> Rows:
    cells = ("c22_1", "c22_2", "c32", "c02", "c42", "c36", "c61")
    neck = [
        row
        for number, cell in enumerate(cells)
        for row in (
            *(
                row
                for i in range(2)
                for row in (
                    (
                        f"neck.blocks.{number}.operations.{i}.0.offset.{{*}}",
                        f"neck.fpn.{cell}.input{i + 1}_conv.conv.conv_offset.{{*}}",
                    ),
                    (f"neck.blocks.{number}.operations.{i}.0.{{*}}", f"neck.fpn.{cell}.input{i + 1}_conv.conv.{{*}}"),
                    (f"neck.blocks.{number}.operations.{i}.1.{{*}}", f"neck.fpn.{cell}.input{i + 1}_conv.bn.{{*}}"),
                )
            ),
            (f"neck.blocks.{number}.join.conv.{{*}}", f"neck.fpn.{cell}.out_conv.conv.{{*}}"),
            (f"neck.blocks.{number}.join.norm.{{*}}", f"neck.fpn.{cell}.out_conv.bn.{{*}}"),
        )
    ]
    adapt = [
        (f"neck.adapt.{i + 1}.{ours}.{{*}}", f"neck.adapt_convs.{i}.{theirs}.{{*}}")
        for i in range(3)
        for ours, theirs in ((0, "conv"), (1, "bn"))
    ]
    towers = [
        (f"box_head.{ours}.shared.{{i}}.{place}.{{*}}", f"bbox_head.{theirs}_convs.{{i}}.{layer}.{{*}}")
        for ours, theirs in _TOWERS
        for place, layer in (("0.offset", "conv.conv_offset"), ("0", "conv"), ("1", "gn"))
    ]
    found = bool(matching(names, ["bbox_head.cls_convs.{i}.conv.conv_offset.weight"]))
    return (
        *neck,
        *adapt,
        ("neck.top.{i}.{*}", "neck.extra_downsamples.{i}.conv.{*}"),
        *(towers if found else ()),
        *MMDETECTION_FCOS.rows(names),
    )


MMDETECTION_NAS_FCOS = replace(
    MMDETECTION_FCOS,
    marks=("neck.adapt_convs.0.conv.weight", *MMDETECTION_FCOS.marks),
    rows=_mmdetection,
    base=replace(MMDETECTION_FCOS.base, pixels=MSRA, neck=SearchedFPN(), selection=Selection()),
    adapt=fixed_statistics,
    notes=(_NOTES[0], "scores are the square roots of mmdetection's: same order, other numbers"),
)


def neck_settings(base: SearchedFPN, weights: Weights) -> SearchedFPN:
    """`base` with the widths that the weights have."""
    channels = weights["neck.top.0.weight"].shape[0]
    width = weights["neck.adapt.3.0.weight"].shape[0]
    return replace(base, channels=channels, widen=channels // width)


def head_settings(head: FCOS, base: FCOS, weights: Weights) -> FCOS:
    """`head` with the found towers in place of convolutions, if the weights have them."""
    if "box_head.class_tower.shared.0.0.weight" not in weights:
        return head
    return replace(head, genotype=NAS_FCOS_HEAD, class_convs=base.class_convs, box_convs=base.box_convs, norm=base.norm)
