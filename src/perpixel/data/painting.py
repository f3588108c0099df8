"""Colours, textures and light of the synthetic shapes."""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from PIL import Image as Pillow

from perpixel.data.dataset import Image
from perpixel.data.outlines import SHAPES, Piece

Canvas = Float32[ndarray, "h w 3"]


def paint_scene(pieces: Sequence[Piece], size: tuple[int, int], random: np.random.Generator) -> Image:
    """The picture of `pieces` on a soft ground, the last on top."""
    return paint_on(_background(size, random), pieces, random)


def paint_on(canvas: Canvas, pieces: Sequence[Piece], random: np.random.Generator) -> Image:
    """The picture of `pieces` on a ground, which is painted over; the last on top."""
    size = (canvas.shape[0], canvas.shape[1])
    for piece in pieces:
        window = piece.window(size)
        outside = piece.distance(window)
        part = canvas[window]
        _shade(part, outside, piece.radius)
        _lay(part, _textured(*piece.offsets(window), piece.radius, _hue_of(piece, random), random), outside)
    canvas += 2.5 * random.standard_normal(canvas.shape, dtype=np.float32)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _background(size: tuple[int, int], random: np.random.Generator) -> Canvas:
    """A soft two-coloured ground with cloudy light, scratches and specks, none of which is a shape."""
    height, width = size
    hue = random.uniform()
    near = hsv_color(hue, random.uniform(0.08, 0.3), random.uniform(0.55, 0.95))
    far = hsv_color(hue + random.uniform(0.08, 0.3), random.uniform(0.1, 0.4), random.uniform(0.35, 0.8))
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width]
    along = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    share = np.clip(along + 0.5 + 0.5 * clouds(size, random), 0, 1)[..., None]
    canvas = (near * (1 - share) + far * share).astype(np.float32)
    for _ in range(int(random.integers(4, 11))):
        ends = random.uniform(0, 1, (2, 2)) * [width, height]
        _stroke(canvas, ends[0], ends[1], random.uniform(0.5, 1.0), random.uniform(-45, 45))
    for _ in range(int(random.integers(10, 30))):
        at = random.uniform(0, 1, 2) * [width, height]
        _stroke(canvas, at, at + random.normal(0, 1, 2), random.uniform(0.6, 1.5), random.uniform(-70, 70))
    return canvas


def _hue_of(piece: Piece, random: np.random.Generator) -> float:
    """A hue near the favourite of the piece's shape, one time in ten any other: colour tells much, the outline the rest.

    Outlines alone take a network from random weights far longer to learn than the two minutes of a demonstration.
    """
    if random.uniform() < 0.1:
        return random.uniform()
    return SHAPES.index(piece.shape) / len(SHAPES) + random.normal(0, 0.04)


def _textured(
    x: Float32[ndarray, "h w"], y: Float32[ndarray, "h w"], radius: float, hue: float, random: np.random.Generator
) -> Canvas:
    """A plane of one of six textures in two shades of a hue, lit from the top left of (0, 0)."""
    light = hsv_color(hue, random.uniform(0.55, 0.95), random.uniform(0.75, 1.0))
    dark = hsv_color(hue + random.normal(0, 0.06), random.uniform(0.6, 1.0), random.uniform(0.35, 0.6))
    turn, period = random.uniform(0, np.pi), max(4.0, radius * random.uniform(0.3, 0.6))
    wave = np.float32(2 * np.pi / period)
    cos, sin = np.float32(np.cos(turn)) * wave, np.float32(np.sin(turn)) * wave
    u, v = cos * x + sin * y, cos * y - sin * x
    texture = int(random.integers(6))
    if texture == 0:
        pattern = np.zeros_like(u)
    elif texture == 1:
        pattern = np.sin(u)
    elif texture == 2:
        pattern = np.sin(u) * np.sin(v)
    elif texture == 3:
        pattern = np.minimum(np.sin(u), np.sin(v)) - 0.2
    elif texture == 4:
        pattern = np.sin(np.hypot(u, v))
    else:
        pattern = 2 * clouds(u.shape, random)
    share = (0.75 * np.clip(0.5 + 2 * pattern, 0, 1))[..., None]
    glow = np.clip(1.15 - np.hypot(x + 0.4 * radius, y + 0.4 * radius) / (3.5 * radius), 0.6, 1.15)[..., None]
    return ((light * (1 - share) + dark * share) * glow).astype(np.float32)


def _lay(canvas: Canvas, colors: Canvas, outside: Float32[ndarray, "h w"]) -> None:
    """Lays `colors` on `canvas` where `outside` (pixels to the outline) is negative, with a soft, darker rim."""
    cover = np.clip(0.5 - outside, 0, 1)[..., None]
    rim = (0.45 * np.clip(1 + outside / 1.8, 0, 1))[..., None]
    canvas *= 1 - cover
    canvas += cover * colors * (1 - rim)


def _shade(canvas: Canvas, outside: Float32[ndarray, "h w"], radius: float) -> None:
    """The shadow of a shape, to its lower right."""
    shift = max(1, round(0.12 * radius))
    moved = np.pad(outside, ((shift, 0), (shift, 0)), mode="edge")[: outside.shape[0], : outside.shape[1]]
    canvas *= 1 - 0.4 * np.clip(0.5 - moved / (2 * shift), 0, 1)[..., None]


def clouds(size: tuple[int, ...], random: np.random.Generator) -> ndarray:
    """Smooth noise of about -1..1."""
    coarse = random.normal(0, 0.5, (4, 5)).astype(np.float32)
    return np.asarray(Pillow.fromarray(coarse).resize((size[1], size[0]), Pillow.Resampling.BICUBIC))


def _stroke(canvas: Canvas, start: ndarray, end: ndarray, thickness: float, change: float) -> None:
    """A thin line, lighter or darker by `change`."""
    low = np.floor(np.minimum(start, end) - 3).clip(0).astype(int)
    high = np.ceil(np.maximum(start, end) + 3).astype(int)
    part = canvas[low[1] : high[1], low[0] : high[0]]
    y, x = np.mgrid[low[1] : low[1] + part.shape[0], low[0] : low[0] + part.shape[1]] + 0.5
    step = end - start
    along = np.clip(((x - start[0]) * step[0] + (y - start[1]) * step[1]) / max(step @ step, 1e-9), 0, 1)
    away = np.hypot(x - start[0] - along * step[0], y - start[1] - along * step[1])
    part += (change * np.clip(thickness + 0.5 - away, 0, 1)[..., None]).astype(np.float32)


def hsv_color(hue: float, saturation: float, value: float) -> ndarray:
    """RGB, 0..255."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32) * 255
