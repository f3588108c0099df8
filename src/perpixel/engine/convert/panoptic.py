"""AdelaiDet's panoptic BlendMask: BlendMask on P3 to P7, and Panoptic FPN's semantic branch on P2 to P5."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import Tensor

from perpixel.engine.convert.blendmask import ADELAIDET_BLENDMASK
from perpixel.models.detector import DetectorConfig
from perpixel.models.panoptic import PanopticFPN
from perpixel.nn.renaming import Rows
from perpixel.ops.panoptic import RELEASED

_LEVELS = (2, 3, 4, 5)
_PREDICTOR = "branch.predictor.weight"

# They number stages and enlargements in one row, we stages alone; P2 stands first in both.
_NECK: Rows = tuple(
    (f"neck.{part}.{i}.{{*}}", f"backbone.fpn_{part}{level}.{{*}}")
    for part in ("lateral", "output")
    for i, level in enumerate(_LEVELS)
)
_BRANCH: Rows = (
    *(
        row
        for i, level in enumerate(_LEVELS)
        for stage in range(max(1, i))
        for row in (
            (f"branch.levels.{i}.{stage}.1.{{*}}", f"panoptic_module.p{level}.{2 * stage}.norm.{{*}}"),
            (f"branch.levels.{i}.{stage}.0.{{*}}", f"panoptic_module.p{level}.{2 * stage}.{{*}}"),
        )
    ),
    ("branch.predictor.{*}", "panoptic_module.predictor.{*}"),
)


def _rows(names: Collection[str]) -> Rows:
    return (*_NECK, *_BRANCH, *ADELAIDET_BLENDMASK.rows(names))


ADELAIDET_PANOPTIC = replace(
    ADELAIDET_BLENDMASK, marks=(*ADELAIDET_BLENDMASK.marks, "panoptic_module.predictor.weight"), rows=_rows
)


def stuff_of(weights: Mapping[str, Tensor]) -> int:
    """Classes of stuff that weights under our names predict beside objects; 0 of a detector."""
    return len(weights[_PREDICTOR]) - 1 if _PREDICTOR in weights else 0


def around(detector: DetectorConfig, weights: Mapping[str, Tensor]) -> PanopticFPN:
    """The panoptic model whose detector and branch these are."""
    return PanopticFPN(replace(detector, box_stride=8), width=weights[_PREDICTOR].shape[1], merge=RELEASED)


def inside(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A detector's weights and a branch's, as a panoptic model names them."""
    return {name if name.startswith("branch.") else f"detector.{name}": tensor for name, tensor in weights.items()}
