"""Which library a checkpoint comes from, told by its names."""

from collections.abc import Collection

from perpixel.engine.convert.adelaidet import ADELAIDET, DETECTRON2_FCOS, DETECTRON2_RETINANET
from perpixel.engine.convert.blendmask import ADELAIDET_BLENDMASK
from perpixel.engine.convert.condinst import ADELAIDET_CONDINST, MMDETECTION_CONDINST
from perpixel.engine.convert.fcos_original import FCOS_ORIGINAL
from perpixel.engine.convert.layout import Layout
from perpixel.engine.convert.meinst import ADELAIDET_MEINST
from perpixel.engine.convert.mmdetection import MMDETECTION_FCOS, MMDETECTION_RETINANET
from perpixel.engine.convert.nas_fcos import MMDETECTION_NAS_FCOS, NAS_FCOS, NAS_RETINANET
from perpixel.engine.convert.panoptic import ADELAIDET_PANOPTIC
from perpixel.engine.convert.torchvision import TORCHVISION_FCOS, TORCHVISION_RETINANET
from perpixel.errors import InputError
from perpixel.nn.renaming import matching

# FCOS before RetinaNet: the branch for centre-ness is what tells them apart; before FCOS what has more than it.
LAYOUTS = (
    ADELAIDET_CONDINST,
    ADELAIDET_PANOPTIC,
    ADELAIDET_BLENDMASK,
    ADELAIDET_MEINST,
    ADELAIDET,
    FCOS_ORIGINAL,
    NAS_FCOS,
    NAS_RETINANET,
    TORCHVISION_FCOS,
    TORCHVISION_RETINANET,
    MMDETECTION_CONDINST,
    MMDETECTION_NAS_FCOS,
    MMDETECTION_FCOS,
    MMDETECTION_RETINANET,
    DETECTRON2_FCOS,
    DETECTRON2_RETINANET,
)

REFUSED = (
    ("roi_heads.{*}", "a two-stage detector"),
    ("roi_head.{*}", "a two-stage detector"),
)
"""Name templates of what no model of ours has yet."""


def detect_layout(names: Collection[str], wanted: str | None = None) -> Layout:
    """The layout whose marks are among the names.

    Args:
        names: of the weights.
        wanted: a layout's name, to look no further than there.

    Raises:
        InputError: `wanted` is no layout's name, no layout fits, or the model is of a kind not supported yet.
    """
    for template, what in REFUSED:
        if matching(names, [template]):
            raise InputError(f"the checkpoint has {what}, which perpixel cannot convert yet")
    known = list(dict.fromkeys(layout.name for layout in LAYOUTS))
    if wanted is not None and wanted not in known:
        raise InputError(f"layout={wanted!r} is not known: one of {', '.join(known)}")
    for layout in LAYOUTS:
        if (wanted is None or layout.name == wanted) and all(mark in names for mark in layout.marks):
            return layout
    if any(name.startswith("box_head.") for name in names):
        raise InputError("the checkpoint already has the names of perpixel: there is nothing to convert")
    some = ", ".join(list(names)[:3])
    raise InputError(f"the checkpoint is no FCOS or RetinaNet of {', '.join(known)}: its weights are called {some} ...")
