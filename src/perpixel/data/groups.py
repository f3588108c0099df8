"""Numbers of groups for the shapes of an image, so that no object joins another by chance."""

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from perpixel.data.document import AnnotatedObject


class Groups(NamedTuple):
    """What an object may do with groups.

    Attributes:
        number: joins its parts, where it has several; no other object of the image has it.
        keeps: whether it may keep a ``group_id`` that it brought: no object of its class with a mask has the same.
    """

    number: int
    keeps: bool


def group_numbers(objects: Sequence[AnnotatedObject]) -> list[Groups]:
    """For each object of an image."""
    brought = [entry.extra.get("group_id") for entry in objects]
    # Readers join drawn shapes of one class and one number; rectangles among themselves stay apart.
    pairs = Counter((entry.name, repr(number)) for entry, number in zip(objects, brought, strict=True))
    drawn = Counter((entry.name, repr(n)) for entry, n in zip(objects, brought, strict=True) if entry.shape is not None)
    free = (number for number in count(1) if number not in brought)
    found = []
    for entry, number in zip(objects, brought, strict=True):
        pair = entry.name, repr(number)
        found.append(Groups(next(free), type(number) is int and number > 0 and (pairs[pair] == 1 or not drawn[pair])))
    return found
