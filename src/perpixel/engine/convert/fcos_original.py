"""tianzhi0549/FCOS, the first code of the method: names of maskrcnn-benchmark."""

from collections.abc import Collection

from perpixel.engine.convert.adelaidet import with_resnext_pixels
from perpixel.engine.convert.layout import Layout, sequential
from perpixel.models.candidates import Selection
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.nn.fpn import FPN
from perpixel.nn.layers import Pixels
from perpixel.nn.renaming import Rows

CAFFE = Pixels((122.7717, 115.9465, 102.9801), (1.0, 1.0, 1.0), "bgr")
"""Means of the ResNets that came with Detectron's Caffe2."""

ROWS: Rows = (
    ("backbone.body.bn1.{*}", "backbone.body.stem.bn1.{*}"),
    ("backbone.body.conv1.{*}", "backbone.body.stem.conv1.{*}"),
    ("backbone.body.layer{i}.{*}", "backbone.body.layer{i}.{*}"),
    *(
        (f"neck.{ours}.{i}.{{*}}", f"backbone.fpn.fpn_{theirs}{level}.{{*}}")
        for ours, theirs in (("lateral", "inner"), ("output", "layer"))
        for i, level in enumerate((2, 3, 4))
    ),
    ("neck.top.0.{*}", "backbone.fpn.top_blocks.p6.{*}"),
    ("neck.top.1.{*}", "backbone.fpn.top_blocks.p7.{*}"),
    *sequential("box_head.class_tower", "rpn.head.cls_tower"),
    *sequential("box_head.box_tower", "rpn.head.bbox_tower"),
    ("box_head.class_logits.{*}", "rpn.head.cls_logits.{*}"),
    ("box_head.distances.{*}", "rpn.head.bbox_pred.{*}"),
    ("box_head.quality.{*}", "rpn.head.centerness.{*}"),
    ("box_head.scales.{i}.scale", "rpn.head.scales.{i}.scale"),
)


def _rows(names: Collection[str]) -> Rows:
    return ROWS


FCOS_ORIGINAL = Layout(
    name="fcos_original",
    marks=("rpn.head.centerness.weight",),
    rows=_rows,
    base=DetectorConfig(CAFFE, Backbone(stride_in_1x1=True, weights=None), FPN(), FCOS(), None, Selection()),
    adapt=with_resnext_pixels,
    notes=(
        "settings are those of the FCOS_imprv files; for the first ones (FCOS_R_50_FPN_1x and the like): "
        "model.head.activation=exp model.head.quality_tower=class model.head.radius=null model.head.box_loss=iou",
    ),
)
