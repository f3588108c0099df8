"""BlendMask of AdelaiDet: its FCOS without scalars, ProtoNet on P3 to P5, the top layer and the branch of the classes."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import Tensor

from perpixel.engine.convert.adelaidet import ADELAIDET, FCOS_HEAD, IDLE, backbone_and_neck
from perpixel.engine.convert.layout import Layout
from perpixel.models.blendmask import BlendMask
from perpixel.models.candidates import Selection
from perpixel.models.fcos import FCOS
from perpixel.nn.bases import ProtoFPN
from perpixel.nn.renaming import Rows, matching

# They number convolution, norm and ReLU in one row, we a group of the three.
_SEMANTIC: Rows = tuple(
    (f"instance_head.semantic.{ours}.{{*}}", f"basis_module.seg_head.{theirs}.{{*}}")
    for ours, theirs in (("tower.0.0", 0), ("tower.0.1", 1), ("tower.1.0", 3), ("tower.1.1", 4), ("logits", 6))
)
INSTANCE_HEAD: Rows = (
    ("instance_head.top.{*}", "top_layer.{*}"),
    ("instance_head.bottom.refine.{*}", "basis_module.refine.{*}"),
    ("instance_head.bottom.tower.{*}", "basis_module.tower.{*}"),
    *_SEMANTIC,
)


def _rows(names: Collection[str]) -> Rows:
    return (*backbone_and_neck(names), *FCOS_HEAD, *INSTANCE_HEAD)


ADELAIDET_BLENDMASK = Layout(
    name="adelaidet",
    marks=(*ADELAIDET.marks, "top_layer.weight", "basis_module.refine.0.0.weight"),
    rows=_rows,
    base=replace(ADELAIDET.base, head=FCOS(), instance=BlendMask(), selection=Selection(threshold_on="product")),
    adapt=ADELAIDET.adapt,
    unused=IDLE,
    notes=ADELAIDET.notes,
)


def blendmask_settings(base: BlendMask, weights: Mapping[str, Tensor]) -> BlendMask:
    """`base` with what names and shapes of weights under our names tell."""
    head = "instance_head"
    levels = len(matching(weights, [f"{head}.bottom.refine.{{i}}.0.weight"]))
    convs = len(matching(weights, [f"{head}.bottom.tower.{{i}}.0.weight"])) - 1
    # After the first convolutions: the enlargement, one more, the last.
    bases = len(weights[f"{head}.bottom.tower.{convs + 2}.weight"])
    semantic = weights.get(f"{head}.semantic.tower.0.0.weight")
    return replace(
        base,
        bottom=ProtoFPN((8, 16, 32)[:levels], len(weights[f"{head}.bottom.refine.0.0.weight"]), convs),
        bases=bases,
        attention=math.isqrt(len(weights[f"{head}.top.weight"]) // bases),
        semantic_weight=0.0 if semantic is None else base.semantic_weight,
        semantic_width=base.semantic_width if semantic is None else len(semantic),
    )
