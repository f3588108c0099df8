"""Seeded damage: what real files become when a tool is careless, a copy is cut short or somebody means harm."""

import copy
import json
import math
import string
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 255, 256, 2**31, -(2**31), 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400),
    *(0.0, -0.0, 0.5, -0.5, 1e-300, 1e18, 1e300, -1e300, math.nan, math.inf, -math.inf),
    *(
        "",
        " ",
        "a",
        "0",
        "-1",
        "1e3",
        "nan",
        "²",
        "٣",
        "null",
        "<script>alert(1)</script>",
        "a\0b",
        "\ud800",
        "é" * 40,
        "a" * 5000,
    ),
    *(
        "../../../etc/passwd",
        "/etc/passwd",
        "~",
        ".",
        "..",
        "/",
        "C:\\x",
        "2001-99-99",
        "{",
        "[[",
        "&a",
        "*a",
        "!!python/x",
    ),
    *(
        [],
        {},
        [[]],
        [{}],
        [None],
        ["a"],
        [math.nan] * 4,
        [0] * 6,
        [1, 2, 3],
        {"a": 1},
        {"size": [4, 4], "counts": "04"},
    ),
    *([[1e300, 0, 0, 1e300, 5, 5]], [[-1e9, -1e9, 1e9, -1e9, 0, 1e9]], {"size": [17, 24], "counts": [408]}),
    *({"size": [17, 24], "counts": "~~~~"}, {"size": [2**31, 2**31], "counts": "0"}, {"kind": "FCOS"}, {"kind": [1]}),
)
"""What a field may hold instead."""

SPLICES = (
    b"",
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\n",
    b"[" * 3000,
    b"{" * 50,
    b'"',
    b"9" * 5000,
    b"&a;",
    b"<",
    b"%s",
    b"-",
    b"e999",
)


def damage(value: Any, random: Random, times: int | None = None) -> Any:
    """A copy of a document with one to three places changed: replaced, removed, doubled, exchanged."""
    whole = [copy.deepcopy(value)]
    for _ in range(times or random.choice((1, 1, 1, 2, 3))):
        holder, key = random.choice(_places(whole))
        match random.randrange(10):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, list) and holder is not whole:
                del holder[key]
            case 2 | 3 if isinstance(holder, list) and holder is not whole:
                holder.insert(random.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
            case 4 if isinstance(holder, dict):
                holder[random.choice(("", "id", "kind", "name", "x" * 300, "\ud800"))] = holder[key]
            case 5 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = _odd_number(holder[key], random)
            case 6 if isinstance(holder[key], str):
                holder[key] = damage_text(holder[key], random)
            case _:
                holder[key] = copy.deepcopy(random.choice(VALUES))
    return whole[0]


def _places(whole: list[Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting: list[tuple[Any, Any]] = [(whole, 0)]
    while waiting:
        holder, key = waiting.pop()
        found.append((holder, key))
        inner = holder[key]
        if isinstance(inner, dict):
            waiting += [(inner, name) for name in inner]
        elif isinstance(inner, list):
            waiting += [(inner, place) for place in range(len(inner))]
    return found


def _odd_number(value: float, random: Random) -> Any:
    try:
        return random.choice(
            (-value, value + 1, value * 1000, value + 0.5, str(value), [value], value * 1e30, value / 1e30)
        )
    except OverflowError:
        return 0


def damage_text(text: str, random: Random) -> str:
    """A text with a few letters changed."""
    letters = list(text)
    for _ in range(random.randint(1, 4)):
        where = random.randrange(len(letters) + 1)
        match random.randrange(4):
            case 0 if letters:
                del letters[where - 1]
            case 1:
                letters.insert(where, random.choice(string.printable + "\0é²\u2028\ud800"))
            case 2 if letters:
                letters[where - 1] = random.choice("[]{}\"',:&*!|>%@`-0eE.~#?")
            case _:
                end = min(len(letters), where + random.randint(1, 30))
                letters[where:end] = letters[where:end] * random.choice((0, 2, 3))
    return "".join(letters)


def damage_bytes(content: bytes, random: Random) -> bytes:
    """A file's content cut short, with bits turned, with pieces doubled, taken out, overwritten or slipped in."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 10))):
        if not data:
            break
        # Headers decide most: every other change lies among the first bytes.
        reach = len(data) if random.random() < 0.5 else min(len(data), 200)
        where, length = random.randrange(reach), random.randint(1, 40)
        match random.randrange(8):
            case 0:
                del data[where:]
            case 1 | 2:
                data[where] ^= 1 << random.randrange(8)
            case 3:
                data[where] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 4:
                del data[where : where + length]
            case 5:
                data[where:where] = data[where : where + length]
            case 6:
                data[where : where + 4] = random.choice(
                    (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f")
                )
            case _:
                data[where:where] = random.choice(SPLICES)
    return bytes(data)


def damaged_json(document: Any, random: Random) -> bytes:
    """A document's json, changed as a document, as bytes, or both."""
    kind = random.randrange(5)
    changed = document if kind == 0 else damage(document, random)
    content = json.dumps(changed, ensure_ascii=random.random() < 0.9).encode("utf-8", "surrogatepass")
    return damage_bytes(content, random) if kind in (0, 1) else content
