"""Frozen dataclasses as configuration: to and from plain dicts, and overrides by dotted path.

Every setting of the library is a field of a frozen dataclass. A field whose declared class has subclasses
(a box head, a neck, an instance head) is written with its class name under ``kind``. Unknown keys and wrong types are
refused with the nearest valid name.
"""

import difflib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError

from perpixel.errors import InputError

T = TypeVar("T")
Plain = dict[str, Any]


class ConfigError(InputError):
    """A setting that does not exist or does not fit, said in one sentence."""


def to_dict(config: Any) -> Plain:
    """A config as plain dicts, lists, numbers and strings; `from_dict` is its inverse."""
    return {f.name: _plain(getattr(config, f.name), hint) for f, hint in _hints(type(config))}


def from_dict(cls: type[T], values: Any, path: str = "") -> T:
    """Builds `cls` from plain values; missing fields take their defaults.

    Raises:
        ConfigError: an unknown key, a wrong type or a missing field; names the dotted path and the nearest valid name.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or cls.__name__} holds settings by name, not {short(values)}")
    values = dict(values)
    cls = _concrete(cls, values, path)
    known = {f.name: (f, hint) for f, hint in _hints(cls)}
    for key in values:
        if key not in known:
            key = key if isinstance(key, str) and key.isprintable() else short(key)
            raise ConfigError(f"{_join(path, str(key))} is not a setting of {cls.__name__}{_nearest(str(key), known)}")
    built = {}
    for name, (_, hint) in known.items():
        if name in values:
            built[name] = _build(hint, values[name], _join(path, name))
    try:
        return cls(**built)
    except TypeError as error:
        missing = [n for n, (f, _) in known.items() if n not in built and f.default is f.default_factory]
        raise ConfigError(f"{path or cls.__name__} needs {', '.join(missing) or error}") from error
    except (ValueError, OverflowError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{path or cls.__name__}: {error}") from error


def override(config: T, assignments: Sequence[str]) -> T:
    """`config` with ``dotted.path=value`` assignments applied; values are read as YAML.

    Setting ``….kind`` replaces that node by the defaults of the named class, and a mapping replaces the node it is given
    for. Both come first, whatever their place in the list, then single values; checks run once all are in.

    Raises:
        ConfigError: no such path, or a value that does not fit.
    """
    values = to_dict(config)
    parsed = [_parsed(assignment) for assignment in assignments]
    whole_nodes = [(d, v) for d, v in parsed if d.rpartition(".")[2] == "kind" or isinstance(v, Mapping)]
    for dotted, value in whole_nodes:
        _assign(values, dotted, value)
        # The defaults of a newly chosen class are settings that later assignments may name.
        values = to_dict(from_dict(type(config), values))
    for dotted, value in parsed:
        if (dotted, value) not in whole_nodes:
            _assign(values, dotted, value)
    return from_dict(type(config), values)


def merge(config: T, values: Mapping[Any, Any]) -> T:
    """`config` with the fields named in nested plain `values` replaced, the others kept.

    Raises:
        ConfigError: an unknown field or a value that does not fit.
    """

    def merged(below: Plain, above: Mapping[Any, Any]) -> Plain:
        out = dict(below)
        for key, value in above.items():
            nested = isinstance(value, Mapping) and isinstance(out.get(key), dict) and "kind" not in value
            out[key] = merged(out[key], value) if nested else value
        return out

    return from_dict(type(config), merged(to_dict(config), values))


def load_yaml(text: str) -> Any:
    """A YAML document in which 5e-3 and 1e4 are numbers, as in YAML 1.2.

    Raises:
        yaml.YAMLError: not YAML, or YAML that is nested too deeply or repeats itself by aliases (a few lines of those can stand
            for gigabytes).
    """
    try:
        return yaml.load(text, _Yaml)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # What PyYAML lets through of the 99th of a month, a number of 5,000 digits, or `!!int` before no number.
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def load_json(text: str) -> Any:
    """A JSON document.

    Raises:
        ValueError: not JSON, nested too deeply, or with a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def short(value: Any) -> str:
    """A value as it may stand in a sentence."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        text = f"a {type(value).__name__} of too many digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Yaml(yaml.SafeLoader):
    """YAML 1.1, except that a number's exponent needs neither a point before nor a sign after its e; without aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which is not read here: write the value again")
        return super().compose_node(parent, index)


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+|\d*\.\d+|\d+\.)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _parsed(assignment: str) -> tuple[str, Any]:
    dotted, equals, text = assignment.partition("=")
    if not equals or not dotted.isprintable():
        raise ConfigError(f"{short(assignment)} is not of the form path=value")
    try:
        return dotted, load_yaml(text) if text.strip() else None
    except yaml.YAMLError as error:
        raise ConfigError(f"{dotted}: {short(text)} is not valid YAML") from error


def _assign(values: Plain, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    node = values
    for depth, name in enumerate(parents):
        here = ".".join(parents[: depth + 1])
        if name not in node:
            raise ConfigError(f"{here} is not a setting{_nearest(name, node)}")
        if node[name] is None and last == "kind" and depth == len(parents) - 1:
            node[name] = {}
        if node[name] is None:
            raise ConfigError(f"{here} is null, so it has no {last}: set {here}.kind first")
        if not isinstance(node[name], dict):
            raise ConfigError(f"{here} holds one value, no further settings: write {here}=VALUE")
        node = node[name]
    if last == "kind":
        node.clear()
    elif last not in node:
        raise ConfigError(f"{dotted} is not a setting{_nearest(last, node)}")
    node[last] = value


def _plain(value: Any, hint: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": type(value).__name__} if _polymorphic(hint) else {}
        return kind | to_dict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v, None) for k, v in value.items()}
    if isinstance(value, tuple | list):
        inner = next((get_args(o)[0] for o in _options(hint) if get_origin(o) is tuple), None)
        return [_plain(v, inner) for v in value]
    return str(value) if isinstance(value, Path) else value


def _build(hint: Any, value: Any, path: str) -> Any:
    options = _options(hint)
    if value is None and type(None) in options:
        return None
    nested = tuple(o for o in options if isinstance(o, type) and is_dataclass(o))
    if nested and isinstance(value, Mapping):
        return from_dict(_named(nested, value), value, path)
    if nested and isinstance(value, nested):
        return value
    rows = next((get_args(o)[0] for o in options if get_origin(o) is tuple and is_dataclass(get_args(o)[0])), None)
    if rows is not None:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"{path} is a list, not {short(value)}")
        return tuple(_build(rows, v, f"{path}[{i}]") for i, v in enumerate(value))
    try:
        takes_bool = any(o in (bool, Any) or get_origin(o) is Literal for o in options)
        if isinstance(value, bool) and not takes_bool:
            raise ConfigError(f"{path}={value} does not fit: it takes {_describe(hint)}")
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{path}={short(value)} does not fit: it takes {_describe(hint)}") from error


def _options(hint: Any) -> tuple[Any, ...]:
    """The types that a value may have: the parts of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _named(classes: Sequence[type], values: Mapping[Any, Any]) -> type:
    """The class whose family has the ``kind`` of `values`; the first if none has."""
    kind = values.get("kind")
    return next((c for c in classes if kind in [member.__name__ for member in family(c)]), classes[0])


def _concrete(cls: type, values: dict[Any, Any], path: str) -> type:
    """The subclass named by ``kind``, where `cls` has subclasses."""
    named = values.pop("kind", None)
    choices = {c.__name__: c for c in family(cls)}
    if named is None:
        if cls.__abstractmethods__ if hasattr(cls, "__abstractmethods__") else False:
            raise ConfigError(f"{_join(path, 'kind')} is missing: one of {', '.join(sorted(choices))}")
        return cls
    if not isinstance(named, str) or named not in choices:
        raise ConfigError(f"{_join(path, 'kind')}={short(named)} is not known{_nearest(str(named), choices)}")
    return choices[named]


def family(cls: type[T]) -> list[type[T]]:
    """The classes that ``kind`` may name: `cls`, unless it is abstract, and its subclasses that are imported."""
    below = [c for sub in cls.__subclasses__() for c in family(sub)]
    return below if getattr(cls, "__abstractmethods__", None) else [cls, *below]


def _polymorphic(hint: Any) -> bool:
    """Whether a value's class is not known from its declaration."""
    nested = [o for o in _options(hint) if isinstance(o, type) and is_dataclass(o)]
    return len(nested) > 1 or any(o.__subclasses__() for o in nested)


def _hints(cls: type) -> list[tuple[Any, Any]]:
    resolved = typing.get_type_hints(cls)
    return [(f, resolved[f.name]) for f in fields(cls) if f.init]


@cache
def _adapter(hint: Any) -> TypeAdapter:
    return TypeAdapter(hint)


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(repr(a) for a in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(a) for a in get_args(hint))
    if hint is type(None):
        return "null"
    if get_origin(hint) is tuple:
        return f"a list of {_describe(get_args(hint)[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(known)}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
