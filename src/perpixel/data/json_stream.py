"""Walks a large json object member by member, item by item; about a megabyte of it at a time stands as Python objects."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from perpixel.data.text import read_text
from perpixel.errors import InputError

_BLOCK = 1 << 20
_space = re.compile(r"[ \t\n\r]*").match
_border = re.compile(r"\}[ \t\n\r]*,[ \t\n\r]*\{").search


def members(path: Path) -> Iterator[tuple[str, Iterator[Any]]]:
    """The members of the object in `path`: name and items; a member that is not a list has itself as the one item.

    The items of a member must be consumed before the next member is asked for.

    Raises:
        InputError: the file cannot be read, is not json or holds no object.
    """
    cursor = _Cursor(read_text(path), path)
    if cursor.peek() != "{":
        raise InputError(f"{path}: holds no COCO ground truth, which is an object with images and annotations")
    cursor.step()
    while cursor.peek() != "}":
        name = cursor.value()
        cursor.expect(":")
        yield name, _items(cursor) if cursor.peek() == "[" else Single(cursor.value())
        cursor.separator("}")


class Single(Iterator[Any]):
    """The value of a member that is no list, as its one item.

    Attributes:
        value: the value.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self._left = iter((value,))

    def __next__(self) -> Any:
        return next(self._left)


def _items(cursor: "_Cursor") -> Iterator[Any]:
    cursor.step()
    while cursor.peek() != "]":
        yield from cursor.block()
    cursor.step()


class _Cursor:
    """A place in the text; every step skips white space."""

    def __init__(self, text: str, path: Path) -> None:
        self.text, self.path = text, path
        self.decode = json.JSONDecoder().raw_decode
        self.at = _space(text, 0).end()  # pyright: ignore[reportOptionalMemberAccess]

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def step(self) -> None:
        self.at = _space(self.text, self.at + 1).end()  # pyright: ignore[reportOptionalMemberAccess]

    def value(self) -> Any:
        try:
            value, end = self.decode(self.text, self.at)
        except (
            ValueError,
            RecursionError,
        ) as error:  # also lists nested by the thousand, and numbers of as many digits
            raise self._damaged(error) from error
        self.at = _space(self.text, end).end()  # pyright: ignore[reportOptionalMemberAccess]
        return value

    def block(self) -> Iterator[Any]:
        """The next items of a list, about a megabyte of them, with the comma behind each.

        The text up to a place that looks like the border of two objects goes to a quick parser. It accepts the text only
        if that place is such a border; otherwise (the list ends before it) the items are read one by one.
        """
        border = _border(self.text, self.at + _BLOCK)
        if border is not None:
            try:
                items = from_json(f"[{self.text[self.at : border.start() + 1]}]")
            except ValueError:
                items = None
            if items is not None:
                self.at = border.end() - 1
                yield from items
                return
        stop = len(self.text) if border is None else border.start()
        while self.at <= stop and self.peek() != "]":
            yield self.value()
            self.separator("]")

    def expect(self, sign: str) -> None:
        if self.peek() != sign:
            raise self._damaged(json.JSONDecodeError(f"Expecting {sign!r}", self.text, self.at))
        self.step()

    def separator(self, closing: str) -> None:
        """Passes a comma; stays before the closing bracket."""
        if self.peek() != closing:
            self.expect(",")

    def _damaged(self, error: ValueError | RecursionError) -> InputError:
        return InputError(f"{self.path}: is not valid json ({error}); perhaps the file was cut short")
