"""Drawing segments onto a photo: objects in colours of their own, stuff in the muted colour of its class, and a legend."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageDraw

from perpixel.engine.lettering import label_font, on_one_line
from perpixel.engine.palette import Color, color
from perpixel.engine.visualize import SMALLEST_SIDE, Style
from perpixel.structures import Segments

MOST_SWATCHES = 4
"""Of the objects of one class in the legend."""


def segment_colors(labels: Sequence[int], things: int) -> list[Color]:
    """Objects have a colour each, stuff that of its class, half way to grey."""
    colors: list[Color] = []
    objects = 0
    for label in labels:
        if label < things:
            colors.append(color(objects))
            objects += 1
        else:
            red, green, blue = ((value + 110) // 2 for value in color(label - things + 1))
            colors.append((red, green, blue))
    return colors


def draw_segments(
    image: UInt8[np.ndarray, "h w 3"],
    segments: Segments,
    names: Sequence[str],
    things: int,
    style: Style | None = None,
    legend: bool = True,
) -> Image.Image:
    """The photo with its segments on it, and below it what the colours mean.

    Args:
        image: (h, w, 3) RGB.
        segments: of the photo; pixels of none keep the photo's own look, darker.
        names: a class name a segment.
        things: classes of objects; labels from there on are stuff.
        style: sizes and opacity.
        legend: whether to add it; `Style.labels` must ask for labels too.
    """
    style = style or Style()
    owner = segments.map.cpu().numpy()
    scale = style.scale or max(1, -(-SMALLEST_SIDE // max(1, min(image.shape[:2]))))
    colors = segment_colors(segments.labels.tolist(), things)
    table = np.array([*colors, (0, 0, 0)], dtype=np.float32)  # the last is that of no segment
    opacity = np.full(len(table), min(1.0, style.opacity + 0.2), dtype=np.float32)
    share = opacity[owner][..., None]
    mixed = (image * (1 - share) + table[owner] * share).round().astype(np.uint8)
    pixels = np.repeat(np.repeat(mixed, scale, 0), scale, 1)
    pixels[_borders(np.repeat(np.repeat(owner, scale, 0), scale, 1))] = 255
    picture = Image.fromarray(pixels)
    if not (legend and style.labels and len(segments)):
        return picture
    letter = style.letter or max(12, min(64, round(min(picture.size) / 30)))
    below = _legend(segments.labels.tolist(), names, colors, picture.width, letter, style.font)
    whole = Image.new("RGB", (picture.width, picture.height + below.height))
    whole.paste(picture, (0, 0))
    whole.paste(below, (0, picture.height))
    return whole


def _borders(owner: Int[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbour belongs to another segment."""
    out = np.zeros(owner.shape, dtype=bool)
    out[:-1] |= owner[:-1] != owner[1:]
    out[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    return out


def _legend(
    labels: Sequence[int], names: Sequence[str], colors: Sequence[Color], width: int, letter: int, font_file: str | None
) -> Image.Image:
    """Swatches and names of the classes in lines as wide as the picture."""
    rows_of: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows_of.setdefault(label, []).append(row)
    entries = [
        (
            [colors[row] for row in rows[:MOST_SWATCHES]],
            on_one_line(names[rows[0]]) + (f" x{len(rows)}" if len(rows) > 1 else ""),
        )
        for _, rows in sorted(rows_of.items())
    ]
    font = label_font(letter, [text for _, text in entries], font_file)
    gap = letter // 2
    places, x, y = [], gap, gap
    for swatches, text in entries:
        wide = len(swatches) * (letter + 2) + gap + round(font.getlength(text)) + 2 * gap
        if x > gap and x + wide > width:
            x, y = gap, y + letter + gap
        places.append((x, y))
        x += wide
    canvas = Image.new("RGB", (width, y + letter + gap), (24, 24, 28))
    pen = ImageDraw.Draw(canvas)
    for (swatches, text), (x, y) in zip(entries, places, strict=True):
        for value in swatches:
            pen.rectangle((x, y, x + letter - 1, y + letter - 1), fill=value)
            x += letter + 2
        pen.text((x + gap // 2, y + letter / 2), text, fill=(240, 240, 240), font=font, anchor="lm")
    return canvas


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, their upper edges aligned."""
    whole = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), (24, 24, 28))
    x = 0
    for picture in pictures:
        whole.paste(picture, (x, 0))
        x += picture.width
    return whole
