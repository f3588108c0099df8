"""Objects of annotation programs (LabelMe, CVAT): rectangles, polygons and masks, several of which can be one object.

Both programs number groups. Polygons and masks of one class with one group number are parts of one object, as both programs take
them; a single rectangle among them is its box. Other rectangles stand for themselves, grouped or not.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from perpixel.data.dataset import Rle, Shape, box_fault
from perpixel.data.extras import Extras
from perpixel.data.masks import draw_shape, encode, patch_code
from perpixel.data.table import TableBuilder
from perpixel.ops.runs import encode_window

Box = tuple[float, float, float, float]
_SAME = 0.1
"""Pixels: a box nearer than this to the extent of its mask is not written beside it."""


class BadShape(Exception):
    """Why a shape cannot be used."""


@dataclass(frozen=True)
class Part:
    """A rectangle, a polygon or a mask that somebody drew.

    Attributes:
        label: the class.
        box: xyxy of a rectangle, or of the extent of what is drawn.
        shape: a polygon or a mask; None for a rectangle.
        group: its number; None stands alone.
        crowd: see `Record.crowd`.
        extra: whatever else is said of it.
        fields: the names of all that is said of it.
    """

    label: str
    box: Box
    shape: Shape = None
    group: int | None = None
    crowd: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    fields: tuple[str, ...] = ()


def polygon_part(points: Sequence[Sequence[float | int]]) -> tuple[Box, Shape]:
    """Extent and shape of a polygon's points.

    Raises:
        BadShape: fewer than three points, or one that is no number.
    """
    if any(len(point) != 2 for point in points):
        raise BadShape("points are not pairs of numbers")
    try:
        polygon = np.array(points, dtype=np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise BadShape("points have a number that is too large") from error
    if len(polygon) < 3 or not np.isfinite(polygon).all():
        raise BadShape(f"a polygon of {len(polygon)} points is not 3 or more points x, y")
    return _extent(polygon), (polygon,)


def ellipse_points(
    center: tuple[float | int, float | int], radii: tuple[float, float], turn: float = 0.0, corners: int = 64
) -> list[tuple[float, float]]:
    """An ellipse as a polygon; `turn` in degrees, clockwise on the screen."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    offsets = [(radii[0] * math.cos(angle), radii[1] * math.sin(angle)) for angle in angles]
    return [(center[0] + cos * u - sin * v, center[1] + sin * u + cos * v) for u, v in offsets]


def mask_part(inside: Bool[ndarray, "h w"], left: int, top: int, size: tuple[int, int]) -> tuple[Box, Shape]:
    """Extent and code of a mask that fills a window of an image of (height, width).

    Raises:
        BadShape: it is empty, or the window reaches past the image.
    """
    height, width = inside.shape
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise BadShape(f"the mask's window {left},{top} {width}x{height} reaches past the image ({size[1]}x{size[0]})")
    if not inside.any():
        raise BadShape("the mask covers no pixel")
    code = Rle(size, encode_window(inside, top, left, size)["counts"].encode())
    x1, y1, x2, y2 = patch_code(code).box
    return (float(x1), float(y1), float(x2), float(y2)), code


def parts_of(label: str, box: Box, shape: Shape, crowd: bool, extra: dict[str, Any], group: int) -> list[Part]:
    """An object as the shapes that such a program draws; `group` joins them where they are several."""
    if shape is None:
        return [Part(label, box, None, None, crowd, extra)]
    if isinstance(shape, Rle):
        x1, y1, x2, y2 = patch_code(shape).box
        drawn = [Part(label, (float(x1), float(y1), float(x2), float(y2)), shape, group, crowd, extra)]
    else:
        drawn = [Part(label, _extent(polygon), (polygon,), group, crowd, extra) for polygon in shape]
    whole = _joined_box(drawn)
    if max(abs(a - b) for a, b in zip(whole, box, strict=True)) > _SAME:
        drawn.insert(0, Part(label, box, None, group, crowd, extra))
    if len(drawn) > 1:
        return drawn
    return [Part(label, whole, shape, None, crowd, extra)]


def join_parts(parts: Iterable[Part]) -> list[list[Part]]:
    """The parts of each object; the rectangle of an object with a mask comes first."""
    alone, groups = [], {}
    for part in parts:
        if part.group is None:
            alone.append([part])
        else:
            groups.setdefault((part.label, part.group), []).append(part)
    for members in groups.values():
        boxes = [part for part in members if part.shape is None]
        drawn = [part for part in members if part.shape is not None]
        if drawn and len(boxes) == 1:
            alone.append(boxes + drawn)
        else:
            alone += [[part] for part in boxes] + ([drawn] if drawn else [])
    return alone


def add_objects(
    table: TableBuilder, row: int, size: tuple[int, int], parts: Sequence[Part], names: list[str], extras: Extras | None
) -> None:
    """Appends the objects of an image; `names` grows by the class of each, whose number among them is its label so far."""
    for members in join_parts(parts):
        first, drawn = members[0], [part for part in members if part.shape is not None]
        x1, y1, x2, y2 = first.box if first.shape is None else _joined_box(members)
        polygons, code = _joined_shape(drawn, size)
        number = len(table) + 1
        table.add_object(
            row,
            number,
            len(names),
            array("d", (x1, y1, x2 - x1, y2 - y1)),
            crowd=any(part.crowd for part in members),
            polygons=polygons,
            code=code,
        )
        names.append(first.label)
        if extras is not None:
            extra = {name: value for name, value in first.extra.items() if len(members) == 1 or name != "group_id"}
            extras.note_object(number, extra, sorted({name for part in members for name in part.fields}))
            for part in members[1:]:
                extras.lost.update(name for name, value in part.extra.items() if first.extra.get(name) != value)


def check_part(part: Part, size: tuple[int, int]) -> Part:
    """The part, if it has a class and an area in the image.

    Raises:
        BadShape: what is missing.
    """
    if not part.label:
        raise BadShape("has no class")
    fault = box_fault(part.box, size)
    if fault:
        raise BadShape(f"box {', '.join(f'{end:g}' for end in part.box)} {fault}")
    return part


def _joined_shape(drawn: Sequence[Part], size: tuple[int, int]) -> tuple[list[array], bytes]:
    """Polygons, or the code of the union where there is a mask among the parts."""
    shapes = [part.shape for part in drawn if part.shape is not None]
    codes = [shape for shape in shapes if isinstance(shape, Rle)]
    if len(codes) == len(shapes) == 1:
        return [], codes[0].counts
    if codes:
        return [], encode(np.logical_or.reduce([draw_shape(shape, size) for shape in shapes])).counts
    return [array("d", polygon.ravel()) for shape in shapes if not isinstance(shape, Rle) for polygon in shape], b""


def _joined_box(parts: Sequence[Part]) -> Box:
    lefts, tops, rights, bottoms = zip(*(part.box for part in parts), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _extent(polygon: ndarray) -> Box:
    (x1, y1), (x2, y2) = polygon.min(0).tolist(), polygon.max(0).tolist()
    return x1, y1, x2, y2
