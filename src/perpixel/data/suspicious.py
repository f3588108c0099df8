"""Objects that can be used but look like a slip: a person should look at them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from perpixel.data.dataset import Record, Rle, Shape
from perpixel.data.masks import patch_code
from perpixel.errors import InputError

TINY = 2.0
"""Pixels: a narrower or lower box is tiny."""
WHOLE = 0.99
"""A box with more of the image than this share of it covers the whole."""
BEYOND = 2.0
"""Pixels by which a box may pass the border, or a mask its box, before somebody should look."""
SAME = 0.5
"""Pixels by which the ends of two boxes may differ that are the same."""


class Suspicion(NamedTuple):
    """What is odd about an object.

    Attributes:
        row: of the object in its record.
        kind: what it is, in a few words that all of its kind share.
        sentence: the same with numbers.
    """

    row: int
    kind: str
    sentence: str


def suspicions(record: Record, stated: Float[ndarray, "n 4"]) -> list[Suspicion]:
    """What is odd about the objects of an image.

    Args:
        record: the image.
        stated: its boxes as the files say them, not clipped.
    """
    found = []
    height, width = record.size
    for row, (x1, y1, x2, y2) in enumerate(stated.tolist()):
        over = max(-x1, -y1, x2 - width, y2 - height)
        if over > BEYOND:
            found.append(Suspicion(row, "box past the border", f"its box reaches {over:.1f} pixels past the image"))
        if min(x2 - x1, y2 - y1) < TINY:
            found.append(Suspicion(row, "tiny box", f"its box is only {x2 - x1:.1f} x {y2 - y1:.1f} pixels large"))
        share = (min(x2, width) - max(x1, 0)) * (min(y2, height) - max(y1, 0)) / (width * height)
        if share > WHOLE and not record.crowd[row]:
            found.append(Suspicion(row, "box of the whole image", f"its box covers {share:.0%} of the image"))
        beyond = _beyond(record.shapes[row], (x1, y1, x2, y2))
        if beyond > BEYOND:
            found.append(Suspicion(row, "mask outside its box", f"its mask reaches {beyond:.1f} pixels past its box"))
        for other in range(row):
            same = record.labels[other] == record.labels[row] and record.crowd[other] == record.crowd[row]
            if same and np.abs(stated[other] - stated[row]).max() <= SAME:
                number = int(record.annotation_ids[other])
                found.append(Suspicion(row, "annotated twice", f"has the class and the box of annotation {number}"))
                break
    return found


def _beyond(shape: Shape, box: tuple[float, float, float, float]) -> float:
    """Pixels by which a mask reaches past its box; 0 without a mask, or with one that `check` calls a problem."""
    if shape is None:
        return 0.0
    if isinstance(shape, Rle):
        try:
            patch = patch_code(shape)
        except InputError:
            return 0.0
        if not patch.pixels.size:
            return 0.0
        x1, y1, x2, y2 = patch.box
    else:
        points = np.concatenate(shape)
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    return max(box[0] - x1, box[1] - y1, x2 - box[2], y2 - box[3])
