"""What is known of another library's checkpoints: the names of its weights and the conventions its numbers assume."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from perpixel.models.detector import DetectorConfig
from perpixel.nn.renaming import Rows


def _same(config: DetectorConfig, names: Collection[str]) -> DetectorConfig:
    return config


@dataclass(frozen=True)
class Layout:
    """Another library's checkpoints of one box head.

    Attributes:
        name: what users call it.
        marks: name templates of weights that only this layout has.
        rows: (ours, theirs) name templates, given the names in a checkpoint.
        base: settings that its numbers assume; what shapes tell (depth, classes, levels ...) is filled in.
        adapt: last changes to the filled-in settings, given the names in a checkpoint.
        unused: templates of entries that carry nothing of ours.
        exact_frozen_norms: theirs divide by the deviation as it is; ours add 1e-5 to the variance, which is taken off it first.
        notes: what cannot be told from a checkpoint, one sentence each, with the override for the other case.
    """

    name: str
    marks: tuple[str, ...]
    rows: Callable[[Collection[str]], Rows]
    base: DetectorConfig
    adapt: Callable[[DetectorConfig, Collection[str]], DetectorConfig] = _same
    unused: tuple[str, ...] = ()
    exact_frozen_norms: bool = False
    notes: tuple[str, ...] = ()


def sequential(ours: str, theirs: str) -> Rows:
    """Towers whose layers both sides number alike; a deformable convolution of theirs may sit in a wrapper."""
    deformable = ((f"{ours}.{{i}}.offset.{{*}}", f"{theirs}.{{i}}.offset.{{*}}"),)
    wrapped = ((f"{ours}.{{i}}.{{*}}", f"{theirs}.{{i}}.conv.{{*}}"),)
    return (*deformable, *wrapped, (f"{ours}.{{i}}.{{*}}", f"{theirs}.{{i}}.{{*}}"))


def numbered(ours: str, conv: str, norm: str, normalized: bool, depth: int = 8) -> Rows:
    """Towers that they number by convolution and we by layer: convolution, norm if any, ReLU.

    Args:
        ours: prefix of our tower.
        conv, norm: their names of the layers, with `#` for the convolution's number.
        normalized: there are norms.
        depth: longest tower.
    """
    step = 3 if normalized else 2
    rows = []
    for i in range(depth):
        layer, at = conv.replace("#", str(i)), step * i
        rows += [(f"{ours}.{at}.offset.{{*}}", f"{layer}.conv_offset.{{*}}"), (f"{ours}.{at}.{{*}}", f"{layer}.{{*}}")]
        if normalized:
            rows.append((f"{ours}.{at + 1}.{{*}}", f"{norm.replace('#', str(i))}.{{*}}"))
    return tuple(rows)
