"""Frozen dataclasses as configuration: to and from plain dicts, and overrides by dotted path.

Every setting of the library is a field of a frozen dataclass. A field whose declared class has subclasses
(a box head, a neck, an instance head) is written with its class name under ``kind``. Unknown keys and wrong types are
refused with the nearest valid name.
"""

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
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


def from_dict(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Builds `cls` from plain values; missing fields take their defaults.

    Raises:
        ConfigError: an unknown key, a wrong type or a missing field; names the dotted path and the nearest valid name.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path or cls.__name__} holds settings by name, not {values!r}")
    values = dict(values)
    cls = _concrete(cls, values, path)
    known = {f.name: (f, hint) for f, hint in _hints(cls)}
    for key in values:
        if key not in known:
            raise ConfigError(f"{_join(path, key)} is not a setting of {cls.__name__}{_nearest(key, known)}")
    built = {}
    for name, (_, hint) in known.items():
        if name in values:
            built[name] = _build(hint, values[name], _join(path, name))
    try:
        return cls(**built)
    except TypeError as error:
        missing = [n for n, (f, _) in known.items() if n not in built and f.default is f.default_factory]
        raise ConfigError(f"{path or cls.__name__} needs {', '.join(missing) or error}") from error
    except ValueError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{path or cls.__name__}: {error}") from error


def override(config: T, assignments: Sequence[str]) -> T:
    """`config` with ``dotted.path=value`` assignments applied; values are read as YAML.

    Setting ``….kind`` replaces that node by the defaults of the named class.

    Raises:
        ConfigError: no such path, or a value that does not fit.
    """
    values = to_dict(config)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r} is not of the form path=value")
        try:
            value = yaml.safe_load(text) if text.strip() else None
        except yaml.YAMLError as error:
            raise ConfigError(f"{dotted}: {text!r} is not valid YAML") from error
        _assign(values, dotted, value)
        values = to_dict(from_dict(type(config), values))
    return from_dict(type(config), values)


def merge(config: T, values: Mapping[str, Any]) -> T:
    """`config` with the fields named in nested plain `values` replaced, the others kept.

    Raises:
        ConfigError: an unknown field or a value that does not fit.
    """

    def merged(below: Plain, above: Mapping[str, Any]) -> Plain:
        out = dict(below)
        for key, value in above.items():
            nested = isinstance(value, Mapping) and isinstance(out.get(key), dict) and "kind" not in value
            out[key] = merged(out[key], value) if nested else value
        return out

    return from_dict(type(config), merged(to_dict(config), values))


def _assign(values: Plain, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    node = values
    for depth, name in enumerate(parents):
        if not isinstance(node.get(name), dict):
            here = ".".join(parents[: depth + 1])
            why = _nearest(name, node) if name not in node else " that holds further settings"
            raise ConfigError(f"{here} is not a setting{why}")
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
        inner = get_args(hint)[0] if get_origin(hint) is tuple and get_args(hint) else None
        return [_plain(v, inner) for v in value]
    return value


def _build(hint: Any, value: Any, path: str) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    nested = [o for o in options if isinstance(o, type) and is_dataclass(o)]
    if nested and isinstance(value, Mapping):
        return from_dict(nested[0], value, path)
    if nested and any(isinstance(value, o) for o in nested):
        return value
    if get_origin(hint) is tuple and any(is_dataclass(a) for a in get_args(hint)):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"{path} is a list, not {value!r}")
        return tuple(_build(get_args(hint)[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    try:
        if isinstance(value, bool) and bool not in options and not any(get_origin(o) is Literal for o in options):
            raise ConfigError(f"{path}={value} does not fit: it takes {_describe(hint)}")
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{path}={value!r} does not fit: it takes {_describe(hint)}") from error


def _concrete(cls: type, values: Plain, path: str) -> type:
    """The subclass named by ``kind``, where `cls` has subclasses."""
    named = values.pop("kind", None)
    choices = {c.__name__: c for c in _family(cls)}
    if named is None:
        if cls.__abstractmethods__ if hasattr(cls, "__abstractmethods__") else False:
            raise ConfigError(f"{_join(path, 'kind')} is missing: one of {', '.join(sorted(choices))}")
        return cls
    if named not in choices:
        raise ConfigError(f"{_join(path, 'kind')}={named!r} is not known{_nearest(str(named), choices)}")
    return choices[named]


def _family(cls: type) -> list[type]:
    below = [c for sub in cls.__subclasses__() for c in _family(sub)]
    return below if getattr(cls, "__abstractmethods__", None) else [cls, *below]


def _polymorphic(hint: Any) -> bool:
    return any(isinstance(o, type) and is_dataclass(o) and o.__subclasses__() for o in (get_args(hint) or (hint,)))


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
