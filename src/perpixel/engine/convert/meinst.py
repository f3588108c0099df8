"""MEInst of AdelaiDet: its FCOS under another name, a mask tower, a predictor of codes, and the code's constants."""

from collections.abc import Collection
from dataclasses import replace

from perpixel.engine.convert.adelaidet import ADELAIDET, ADELAIDET_HEAD, FCOS_HEAD, IDLE, backbone_and_neck
from perpixel.engine.convert.layout import Layout, sequential
from perpixel.models.meinst import MEInst
from perpixel.nn.renaming import Rows

HEAD = "proposal_generator.MEInst_head."
CODE = "proposal_generator.mask_encoding."

MEINST_HEAD: Rows = (
    *((ours, theirs.replace(ADELAIDET_HEAD, HEAD)) for ours, theirs in FCOS_HEAD),
    *sequential("instance_head.mask_tower", f"{HEAD}mask_tower"),
    ("instance_head.predictor.{*}", f"{HEAD}mask_pred.{{*}}"),
    ("instance_head.code.components", f"{CODE}components"),
    ("instance_head.code.means", f"{CODE}means"),
    ("instance_head.code.variances", f"{CODE}explained_variances"),
)


def _rows(names: Collection[str]) -> Rows:
    return (*backbone_and_neck(names), *MEINST_HEAD)


ADELAIDET_MEINST = Layout(
    name="adelaidet",
    marks=(f"{HEAD}cls_logits.weight", f"{HEAD}mask_pred.weight", f"{CODE}components"),
    rows=_rows,
    base=replace(ADELAIDET.base, instance=MEInst()),
    adapt=ADELAIDET.adapt,
    unused=IDLE,
    notes=("codes are taken as whitened, of logits, as all released models have them",),
)
