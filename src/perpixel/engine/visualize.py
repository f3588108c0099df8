"""Drawing what was found onto a photo: masks, boxes, keypoints and labels, with PIL and numpy only.

Lines and letters grow with the photo, so a thumbnail and a 20-megapixel picture read alike; a very small photo is
enlarged first. Labels stay inside the picture and avoid each other; in a crowd those without room are left out, the
worst scores first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from perpixel.engine.lettering import Font, label_font, on_one_line
from perpixel.engine.palette import Color, color, readable_on

Rectangle = tuple[float, float, float, float]

SMALLEST_SIDE = 320


@dataclass(frozen=True)
class Style:
    """How to draw; sizes in pixels of the picture follow from its size unless they are given.

    Attributes:
        scale: whole factor the photo is enlarged by; None brings the short side of a small photo to 320 or more.
        line: width of box lines.
        letter: height of the label's letters.
        opacity: of masks, 0 (only the contour) .. 1.
        boxes: whether to draw them.
        labels: whether to write class and score.
        keypoint_score: joints below it are left out.
        font: a TrueType file for the labels; None takes a font that has the letters of the class names.
    """

    scale: int | None = None
    line: int | None = None
    letter: int | None = None
    opacity: float = 0.4
    boxes: bool = True
    labels: bool = True
    keypoint_score: float = 0.2
    font: str | None = None


def draw(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "n 4"],
    texts: Sequence[str],
    colors: Sequence[Color],
    masks: Iterable[Bool[np.ndarray, "h w"]] | None = None,
    keypoints: Float[np.ndarray, "n k 3"] | None = None,
    skeleton: Sequence[tuple[int, int]] = (),
    style: Style | None = None,
) -> Image.Image:
    """The photo with n instances drawn on it; the photo itself is left as it is.

    Args:
        image: (h, w, 3) RGB.
        boxes: (n, 4) xyxy in pixels of the image.
        texts: a label an instance.
        colors: a colour an instance.
        masks: one mask after the other, so that a long list need not exist at once; None where there are none.
        keypoints: (n, k, 3) x, y, score.
        skeleton: pairs of joints that a limb joins, counted from 0.
        style: sizes and opacity.
    """
    style = style or Style()
    height, width = image.shape[:2]
    scale = style.scale or max(1, -(-SMALLEST_SIDE // max(1, min(height, width))))
    short = min(height, width) * scale
    line = style.line or max(2, round(short / 260))
    letter = style.letter or max(12, min(64, round(short / 30)))

    # Nearest pixels under masks, so that what is filled is what the mask says.
    method = Image.Resampling.BICUBIC if masks is None else Image.Resampling.NEAREST
    canvas = Image.fromarray(image).resize((width * scale, height * scale), method)
    if masks is not None:
        _paint_masks(canvas, masks, colors, scale, style.opacity, max(1, line // 2))
    pen = ImageDraw.Draw(canvas)
    # Large boxes first: the small ones stay on top.
    order = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable")
    if style.boxes:
        for row in order:
            _box(pen, boxes[row] * scale, colors[row], line)
    if keypoints is not None:
        for row in order:
            _keypoints(pen, keypoints[row] * (scale, scale, 1), skeleton, colors[row], line, style.keypoint_score)
    if style.labels:
        texts = [on_one_line(text) for text in texts]
        _labels(pen, canvas.size, boxes * scale, texts, colors, label_font(letter, texts, style.font), letter, line)
    return canvas


def _paint_masks(
    canvas: Image.Image,
    masks: Iterable[Bool[np.ndarray, "h0 w0"]],
    colors: Sequence[Color],
    scale: int,
    opacity: float,
    contour: int,
) -> None:
    """Translucent fillings, then all contours on top, so that touching instances stay apart."""
    edges: list[tuple[Image.Image, tuple[int, int], Color]] = []
    for mask, value in zip(masks, colors, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue
        inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = np.repeat(np.repeat(inside, scale, 0), scale, 1)
        place = (int(columns[0]) * scale, int(rows[0]) * scale)
        canvas.paste(value, place, Image.fromarray(inside * np.uint8(round(255 * opacity))))
        edges.append((Image.fromarray(inside & ~_eroded(inside, contour)), place, value))
    for edge, place, value in edges:
        canvas.paste(value, place, edge)


def _eroded(mask: Bool[np.ndarray, "h w"], times: int) -> Bool[np.ndarray, "h w"]:
    """The mask without its outermost `times` pixels (4-neighbours; beyond the array lies nothing)."""
    for _ in range(times):
        padded = np.pad(mask, 1)
        mask = mask & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return mask


def _box(pen: ImageDraw.ImageDraw, box: Float[np.ndarray, " 4"], value: Color, line: int) -> None:
    """A box in its colour with a thin dark line around it, so that it shows on any background."""
    left, top, right, bottom = (round(float(v)) for v in box)
    right, bottom = max(right - 1, left), max(bottom - 1, top)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=1)
    pen.rectangle((left, top, right, bottom), outline=value, width=line)


def _keypoints(
    pen: ImageDraw.ImageDraw,
    joints: Float[np.ndarray, "k 3"],
    limbs: Sequence[tuple[int, int]],
    value: Color,
    line: int,
    threshold: float,
) -> None:
    shown = joints[:, 2] > threshold
    for first, second in limbs:
        if shown[first] and shown[second]:
            ends = [tuple(joints[first, :2]), tuple(joints[second, :2])]
            pen.line(ends, fill=(0, 0, 0), width=line + 3)
            pen.line(ends, fill=value, width=line + 1)
    radius = line * 1.25
    for x, y, _ in joints[shown]:
        pen.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), fill=(0, 0, 0))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255))
        pen.ellipse((x - radius / 2, y - radius / 2, x + radius / 2, y + radius / 2), fill=value)


def _labels(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    boxes: Float[np.ndarray, "n 4"],
    texts: Sequence[str],
    colors: Sequence[Color],
    font: Font,
    letter: int,
    line: int,
) -> None:
    """A filled label at each box, the first rows first; one that would hide another is left out, its colour remains."""
    pad = max(2, letter // 5)
    placed: list[Rectangle] = []
    for box, text, value in zip(boxes.tolist(), texts, colors, strict=True):
        if not text:
            continue
        text = _fitting(text, font, size[0] - 2 * pad)
        width = round(font.getlength(text)) + 2 * pad
        height = letter + 2 * pad
        rectangle = place_label(box, (width, height), size, placed, line)
        if sum(_overlap(rectangle, other) for other in placed) > width * height / 10:
            continue
        placed.append(rectangle)
        pen.rounded_rectangle((rectangle[0], rectangle[1], rectangle[2] - 1, rectangle[3] - 1), radius=pad, fill=value)
        pen.text(
            (rectangle[0] + pad, (rectangle[1] + rectangle[3]) / 2),
            text,
            fill=readable_on(value),
            font=font,
            anchor="lm",
        )


def _fitting(text: str, font: Font, width: int) -> str:
    """The text, cut with an ellipsis where it is wider than the picture."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def place_label(
    box: Sequence[float],
    label: tuple[int, int],
    picture: tuple[int, int],
    placed: Sequence[Rectangle],
    line: int,
) -> Rectangle:
    """Where a label goes: above the box, else inside its top, below it, inside its bottom; left or right.

    The first place free of earlier labels wins, otherwise the one that covers least of them. Always inside the picture.

    Args:
        box: xyxy.
        label: (width, height) of the label.
        picture: (width, height) of the picture.
        placed: earlier labels, xyxy.
        line: width of the box's line.
    """
    width, height = label
    left, top, right, bottom = box
    heights = (top - height, top + line, bottom, bottom - height - line)
    wanted = [(x, y) for y in heights for x in (left, right - width)]
    best, least = (0.0, 0.0, 0.0, 0.0), float("inf")
    for x, y in wanted:
        inside_x = min(max(float(x), 0.0), max(0.0, float(picture[0] - width)))
        inside_y = min(max(float(y), 0.0), max(0.0, float(picture[1] - height)))
        rectangle = (inside_x, inside_y, inside_x + width, inside_y + height)
        # A place moved far into the picture is no longer at the box: that counts like covering.
        cost = sum(_overlap(rectangle, other) for other in placed) + abs(inside_y - y) * width
        if cost < least:
            best, least = rectangle, cost
    return best


def _overlap(a: Rectangle, b: Rectangle) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def track_colors(tracks: Sequence[int]) -> list[Color]:
    """A colour a track, the same in every frame; grey where an object is not followed."""
    return [color(number - 1) if number else (170, 170, 170) for number in tracks]


def instance_colors(labels: Sequence[int], classes: int) -> list[Color]:
    """A colour a class; where there is only one class, a colour an instance."""
    return [color(label if classes > 1 else row) for row, label in enumerate(labels)]
