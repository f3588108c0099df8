"""A sheet of small pictures with their boxes: a data set at a glance."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from perpixel.data.dataset import Dataset, Record
from perpixel.data.masks import draw_shape
from perpixel.errors import InputError

_COLORS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe", "#008080")


def picture_sheet(dataset: Dataset, *, count: int = 20, columns: int = 5, side: int = 320) -> Pillow.Image:
    """`count` images spread over the data set, `columns` a row, each within `side` pixels, with boxes, masks and names.

    An image that cannot be read leaves its place grey.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int))
    rows = ceil(len(chosen) / columns)
    sheet = Pillow.new("RGB", (columns * side, rows * side), "#303030")
    for place, index in enumerate(chosen.tolist()):
        try:
            cell = _cell(dataset.image(index), dataset.record(index), dataset.classes, side - 4)
        except InputError:
            continue  # the report names it
        row, column = divmod(place, columns)
        sheet.paste(cell, (column * side + 2, row * side + 2))
    return sheet


def _cell(image: np.ndarray, record: Record, classes: Sequence[str], side: int) -> Pillow.Image:
    tinted = image.copy()
    for shape, label in zip(record.shapes, record.labels, strict=True):
        if shape is not None:
            mask = draw_shape(shape, record.size)
            tinted[mask] = (0.6 * tinted[mask] + 0.4 * np.array(_rgb(int(label)))).astype(np.uint8)
    scale = side / max(record.size)
    size = max(1, round(record.size[1] * scale)), max(1, round(record.size[0] * scale))
    cell = Pillow.fromarray(tinted).resize(size, Pillow.Resampling.BILINEAR)
    draw = ImageDraw.Draw(cell)
    for row, box in enumerate((record.boxes * scale).tolist()):
        label = int(record.labels[row])
        draw.rectangle(box, outline="white" if record.crowd[row] else _COLORS[label % len(_COLORS)], width=2)
        draw.text((box[0] + 3, box[1] + 1), classes[label], fill="white", stroke_width=1, stroke_fill="black")
    for x, y, visibility in (
        (record.keypoints * [scale, scale, 1]).reshape(-1, 3) if record.keypoints is not None else ()
    ):
        if visibility > 0:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill="#ff3030" if visibility > 1 else "#ffa0a0")
    return cell


def _rgb(label: int) -> tuple[int, int, int]:
    color = _COLORS[label % len(_COLORS)]
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
