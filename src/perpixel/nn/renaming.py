"""Names of weights from one library's to another's, by tables of patterns."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

Rows = Sequence[tuple[str, str]]
"""(ours, theirs) templates of a name. `{i}` stands for a whole number, `{*}` for the rest of a name, and both sides hold the
same ones; everything else is literal."""

# The inside of a bottleneck or basic block as timm and torchvision name it, and as detectron2 does.
_BLOCK = (
    ("downsample.1.{*}", "shortcut.norm.{*}"),
    ("downsample.0.{*}", "shortcut.{*}"),
    *((f"bn{k}.{{*}}", f"conv{k}.norm.{{*}}") for k in (1, 2, 3)),
    ("conv2.offset.{*}", "conv2_offset.{*}"),
    *((f"conv{k}.{{*}}", f"conv{k}.{{*}}") for k in (1, 2, 3)),
)
DETECTRON2_RESNET: Rows = (
    ("bn1.{*}", "stem.conv1.norm.{*}"),
    ("conv1.{*}", "stem.conv1.{*}"),
    *(
        (f"layer{stage - 1}.{{i}}.{ours}", f"res{stage}.{{i}}.{theirs}")
        for stage in (2, 3, 4, 5)
        for ours, theirs in _BLOCK
    ),
)
"""A ResNet of timm or torchvision, and of detectron2."""

_NUMBERS = "ijk"


def with_prefix(rows: Rows, ours: str, theirs: str) -> Rows:
    """The same rows below a prefix on either side."""
    return tuple((ours + a, theirs + b) for a, b in rows)


def renamed(weights: Mapping[str, Tensor], rows: Rows) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under our names, and the names no row knows. The first row that fits a name decides."""
    patterns = [(_pattern(theirs), ours) for ours, theirs in rows]
    out: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in weights.items():
        for pattern, ours in patterns:
            if found := pattern.fullmatch(name):
                out[_filled(ours, found.groupdict())] = tensor
                break
        else:
            unknown.append(name)
    return out, unknown


def matching(names: Iterable[str], templates: Iterable[str]) -> list[str]:
    """The names that fit one of the templates, in which a sign may stand several times."""
    any_value = {"rest": ".+"} | dict.fromkeys(_NUMBERS, "[0-9]+")
    patterns = [re.compile(_filled(re.escape(template), any_value, re.escape)) for template in templates]
    return [name for name in names if any(pattern.fullmatch(name) for pattern in patterns)]


def _pattern(template: str) -> re.Pattern[str]:
    groups = {"rest": "(?P<rest>.+)"} | {number: f"(?P<{number}>[0-9]+)" for number in _NUMBERS}
    return re.compile(_filled(re.escape(template), groups, re.escape))


def _filled(template: str, values: Mapping[str, str], written: Callable[[str], str] = str) -> str:
    """The template with its signs, as `written`, replaced by the values."""
    for name, value in values.items():
        template = template.replace(written("{*}" if name == "rest" else f"{{{name}}}"), value)
    return template
