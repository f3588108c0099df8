"""Frozen dataclasses to plain values and back, overrides, and what bad settings are told."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpixel.config import ConfigError, from_dict, load_yaml, merge, override, to_dict


@dataclass(frozen=True)
class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...


@dataclass(frozen=True)
class Circle(Shape):
    radius: float = 1.0

    def area(self) -> float:
        return 3 * self.radius**2


@dataclass(frozen=True)
class Rectangle(Shape):
    width: float
    height: float = 2.0

    def area(self) -> float:
        return self.width * self.height


@dataclass(frozen=True)
class Dot:
    x: int = 0


@dataclass(frozen=True)
class Dash:
    length: int = 5


@dataclass(frozen=True)
class Inner:
    count: int = 1
    ratio: float = 0.5

    def __post_init__(self):
        if self.count > 100:
            raise ValueError("count is above 100")
        if self.ratio > self.count:
            raise ValueError(f"ratio={self.ratio} is above count={self.count}")


@dataclass(frozen=True)
class Outer:
    shape: Shape = field(default_factory=Circle)
    more: tuple[Shape, ...] = ()
    maybe: Shape | None = None
    maybe_more: tuple[Shape, ...] | None = None
    mark: Dot | Dash = field(default_factory=Dot)
    inner: Inner = field(default_factory=Inner)
    name: str = "a"
    mode: Literal["fast", "exact"] = "fast"
    flag: bool = False
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    text_or_number: str | float = "x"
    anything: Any = None
    file: Path = Path("a/b")


numbers = st.floats(allow_nan=False, allow_infinity=False)
shapes = st.one_of(st.builds(Circle, numbers), st.builds(Rectangle, numbers, numbers))
outers = st.builds(
    Outer,
    shape=shapes,
    more=st.lists(shapes, max_size=3).map(tuple),
    maybe=st.none() | shapes,
    maybe_more=st.none() | st.lists(shapes, max_size=2).map(tuple),
    mark=st.builds(Dot, st.integers()) | st.builds(Dash, st.integers()),
    inner=st.builds(Inner, st.integers(1, 100), st.floats(0, 1)),
    name=st.text(),
    mode=st.sampled_from(["fast", "exact"]),
    flag=st.booleans(),
    sizes=st.lists(st.integers()).map(tuple),
    pair=st.tuples(numbers, numbers),
    limit=st.none() | st.integers(),
    text_or_number=st.text() | numbers,
    anything=st.none() | st.booleans() | st.integers() | st.text(),
    file=st.sampled_from([Path("x.json"), Path("/a/b c")]),
)


@given(outers)
def test_round_trip(config: Outer):
    assert from_dict(Outer, to_dict(config)) == config
    assert override(config, []) == config
    assert merge(config, {}) == config


@given(outers)
def test_plain_values_are_json(config: Outer):
    def check(value: Any) -> None:
        assert type(value) in (dict, list, str, int, float, bool, type(None))
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(item)

    check(to_dict(config))


@given(st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.integers()), st.just({})))
def test_any_key_and_value_is_taken_or_refused_in_one_sentence(key: str, value: Any):
    for cls in (Outer, Inner):
        try:
            built = from_dict(cls, {key: value})
        except ConfigError as error:
            assert str(error)
        else:
            assert isinstance(built, cls) and hasattr(built, key)


@given(
    st.sampled_from([f for f in Outer.__dataclass_fields__]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
)
def test_any_value_of_a_real_field_is_taken_or_refused(name: str, value: Any):
    try:
        assert isinstance(from_dict(Outer, {name: value}), Outer)
    except ConfigError as error:
        assert str(error).startswith(name)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"shap": {}}, "shap is not a setting of Outer; did you mean shape?"),
        ({"inner": {"cout": 3}}, "inner.cout is not a setting of Inner; did you mean count?"),
        ({"inner": {"zzz": 3}}, "inner.zzz is not a setting of Inner; it has count, ratio"),
        ({3: 4}, "3 is not a setting of Outer"),
        ({"inner": 7}, "inner=7 does not fit: it takes Inner"),
        ({"inner": {"count": "many"}}, "inner.count='many' does not fit: it takes a whole number"),
        ({"inner": {"count": 1.5}}, "inner.count=1.5 does not fit: it takes a whole number"),
        ({"inner": {"count": True}}, "inner.count=True does not fit: it takes a whole number"),
        ({"inner": {"ratio": False}}, "inner.ratio=False does not fit: it takes a number"),
        ({"inner": {"count": 200}}, "inner: count is above 100"),
        ({"mode": "fas"}, "mode='fas' does not fit: it takes 'fast' | 'exact'"),
        ({"name": 5}, "name=5 does not fit: it takes text"),
        ({"flag": "perhaps"}, "flag='perhaps' does not fit: it takes true or false"),
        ({"sizes": 5}, "sizes=5 does not fit: it takes a list of a whole number"),
        ({"sizes": ["a"]}, "sizes=['a'] does not fit: it takes a list of a whole number"),
        ({"limit": "none"}, "limit='none' does not fit: it takes a whole number or null"),
        ({"shape": {"kind": "Cirle"}}, "shape.kind='Cirle' is not known; did you mean Circle?"),
        ({"shape": {"radius": 1}}, "shape.kind is missing: one of Circle, Rectangle"),
        ({"shape": {"kind": "Rectangle"}}, "shape needs width"),
        ({"more": "Circle"}, "more is a list, not 'Circle'"),
        ({"more": [{"kind": "Circle", "radius": "big"}]}, "more[0].radius='big' does not fit: it takes a number"),
        ({"maybe_more": [{"kind": "Circl"}]}, "maybe_more[0].kind='Circl' is not known; did you mean Circle?"),
    ],
)
def test_refusals(values: dict, sentence: str):
    with pytest.raises(ConfigError) as caught:
        from_dict(Outer, values)
    assert str(caught.value).startswith(sentence)


def test_not_a_mapping():
    with pytest.raises(ConfigError, match="Outer holds settings by name, not"):
        from_dict(Outer, [1])


@pytest.mark.parametrize(
    ("assignments", "path", "expected"),
    [
        (["inner.count=3"], "inner.count", 3),
        (["inner.ratio=5e-3"], "inner.ratio", 0.005),
        (["inner.ratio=1e-1"], "inner.ratio", 0.1),
        (["inner.count=1e2"], "inner.count", 100),
        (["inner.ratio=1"], "inner.ratio", 1.0),
        (["sizes=[3, 4]"], "sizes", (3, 4)),
        (["pair=[1, 2e0]"], "pair", (1.0, 2.0)),
        (["limit=4"], "limit", 4),
        (["limit=4", "limit=null"], "limit", None),
        (["limit=4", "limit="], "limit", None),
        (["flag=true"], "flag", True),
        (["mode=exact"], "mode", "exact"),
        (["name=a=b"], "name", "a=b"),
        (["name=shapes:40:1"], "name", "shapes:40:1"),
        (["anything=true"], "anything", True),
        (["file=c/d.json"], "file", Path("c/d.json")),
        (["shape.radius=2"], "shape", Circle(2.0)),
        (["maybe.kind=Circle"], "maybe", Circle()),
        (["maybe.kind=Circle", "maybe.radius=3"], "maybe", Circle(3.0)),
        (["maybe.radius=3", "maybe.kind=Circle"], "maybe", Circle(3.0)),
        (["maybe.kind=Circle", "maybe=null"], "maybe", None),
        (["shape={kind: Rectangle, width: 4}"], "shape", Rectangle(4.0)),
        (["shape={kind: Rectangle, width: 4}", "shape.height=1"], "shape", Rectangle(4.0, 1.0)),
        (["shape={kind: Rectangle, width: 4}", "shape.kind=Circle"], "shape", Circle()),
        (["more=[{kind: Circle}, {kind: Rectangle, width: 1}]"], "more", (Circle(), Rectangle(1.0))),
        (["maybe_more=[{kind: Circle}]"], "maybe_more", (Circle(),)),
        (["mark.kind=Dash"], "mark", Dash()),
        (["mark.kind=Dash", "mark.length=7"], "mark", Dash(7)),
        # ratio may not exceed count: only the whole is checked, so the order does not matter.
        (["inner.ratio=7", "inner.count=9"], "inner", Inner(9, 7.0)),
    ],
)
def test_override(assignments: list[str], path: str, expected: Any):
    value = override(Outer(), assignments)
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("inner.cont=3", "inner.cont is not a setting; did you mean count?"),
        ("iner.count=3", "iner is not a setting; did you mean inner?"),
        ("name.x=3", "name holds one value, no further settings: write name=VALUE"),
        ("maybe.radius=3", "maybe is null, so it has no radius: set maybe.kind first"),
        ("shape.kind=Cirle", "shape.kind='Cirle' is not known; did you mean Circle?"),
        ("inner.count", "'inner.count' is not of the form path=value"),
        ("sizes=[1", "sizes: '[1' is not valid YAML"),
        ("inner.count=x", "inner.count='x' does not fit: it takes a whole number"),
        ("inner.kind=Dot", "inner.kind='Dot' is not known"),
        ("inner.ratio=2", "inner: ratio=2.0 is above count=1"),
    ],
)
def test_override_refusals(assignment: str, sentence: str):
    with pytest.raises(ConfigError) as caught:
        override(Outer(), [assignment])
    assert str(caught.value).startswith(sentence)


def test_override_changes_nothing_else():
    config = Outer(name="kept", maybe=Rectangle(3.0))
    assert override(config, ["inner.count=5"]) == Outer(name="kept", maybe=Rectangle(3.0), inner=Inner(5))


def test_merge_keeps_what_is_not_named_and_replaces_by_kind():
    config = Outer(inner=Inner(5, 0.25), shape=Circle(3.0))
    assert merge(config, {"inner": {"count": 7}}).inner == Inner(7, 0.25)
    assert merge(config, {"shape": {"kind": "Circle"}}).shape == Circle(1.0)
    assert merge(config, {"shape": {"radius": 4}}).shape == Circle(4.0)
    with pytest.raises(ConfigError, match="did you mean count"):
        merge(config, {"inner": {"cout": 7}})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-3", 0.005),
        ("1e4", 10000.0),
        ("-2.5E+3", -2500.0),
        ("1.e2", 100.0),
        (".5e1", 5.0),
        ("5", 5),
        ("0.5", 0.5),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1e5x", "1e5x"),
        ("true", True),
    ],
)
def test_yaml_numbers(text: str, value: Any):
    assert load_yaml(text) == value and type(load_yaml(text)) is type(value)
