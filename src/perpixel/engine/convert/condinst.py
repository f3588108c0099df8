"""CondInst and BoxInst of AdelaiDet: its FCOS, a mask branch and the controller. They differ in nothing but the loss."""

from collections.abc import Collection
from dataclasses import replace

from perpixel.engine.convert.adelaidet import ADELAIDET, FCOS_HEAD, PIXEL_STATISTICS, backbone_and_neck
from perpixel.engine.convert.layout import Layout
from perpixel.models.candidates import Selection
from perpixel.models.condinst import CondInst
from perpixel.models.fcos import FCOS
from perpixel.nn.renaming import Rows

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
    unused=(*PIXEL_STATISTICS, "mask_head.sizes_of_interest", "mask_head._iter"),
    notes=(
        *ADELAIDET.notes,
        "16 mask channels are taken as BoxInst, which matters for further training only; if it was CondInst: "
        "model.instance.kind=CondInst model.instance.mask_channels=16",
    ),
)
