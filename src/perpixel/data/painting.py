"""Colours and textures of the synthetic shapes."""

import colorsys

import numpy as np
from jaxtyping import Float32, Float64
from numpy import ndarray
from PIL import Image as Pillow

Canvas = Float64[ndarray, "h w 3"]


def background(size: tuple[int, int], random: np.random.Generator) -> Canvas:
    """A soft two-coloured ground with cloudy light, scratches and specks, none of which is a shape."""
    height, width = size
    hue = random.uniform()
    near = _color(hue, random.uniform(0.08, 0.3), random.uniform(0.55, 0.95))
    far = _color(hue + random.uniform(0.08, 0.3), random.uniform(0.1, 0.4), random.uniform(0.35, 0.8))
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width]
    along = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    share = np.clip(along + 0.5 + 0.5 * _clouds(size, random), 0, 1)[..., None]
    canvas = near * (1 - share) + far * share
    for _ in range(int(random.integers(4, 11))):
        ends = random.uniform(0, 1, (2, 2)) * [width, height]
        _stroke(canvas, ends[0], ends[1], random.uniform(0.5, 1.0), random.uniform(-45, 45))
    for _ in range(int(random.integers(10, 30))):
        at = random.uniform(0, 1, 2) * [width, height]
        _stroke(canvas, at, at + random.normal(0, 1, 2), random.uniform(0.6, 1.5), random.uniform(-70, 70))
    return canvas


def textured(size: tuple[int, int], center: tuple[float, float], radius: float, random: np.random.Generator) -> Canvas:
    """A plane of one of six textures in two colours, lit from the top left of `center`."""
    hue = random.uniform()
    light = _color(hue, random.uniform(0.55, 0.95), random.uniform(0.75, 1.0))
    dark = _color(hue + random.normal(0, 0.06), random.uniform(0.6, 1.0), random.uniform(0.35, 0.6))
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    x, y = x - center[0], y - center[1]
    turn, period = random.uniform(0, np.pi), max(4.0, radius * random.uniform(0.3, 0.6))
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    wave_u, wave_v = np.sin(2 * np.pi * u / period), np.sin(2 * np.pi * v / period)
    pattern = (
        np.zeros_like(u),
        wave_u,
        wave_u * wave_v,
        np.minimum(wave_u, wave_v) - 0.2,
        np.sin(2 * np.pi * np.hypot(u, v) / period),
        2 * _clouds(size, random),
    )[int(random.integers(6))]
    share = np.clip(0.5 + 2 * pattern, 0, 1)[..., None] * 0.75
    glow = np.clip(1.15 - np.hypot(x + 0.4 * radius, y + 0.4 * radius) / (3.5 * radius), 0.6, 1.15)[..., None]
    return (light * (1 - share) + dark * share) * glow


def paint(canvas: Canvas, colors: Canvas, outside: Float32[ndarray, "h w"]) -> None:
    """Lays `colors` on `canvas` where `outside` (pixels to the outline) is negative, with a soft, darker rim."""
    cover = np.clip(0.5 - outside, 0, 1)[..., None]
    rim = (np.clip(1 + outside / 1.8, 0, 1) * 0.45)[..., None]
    canvas *= 1 - cover
    canvas += cover * colors * (1 - rim)


def shadow(canvas: Canvas, outside: Float32[ndarray, "h w"], radius: float) -> None:
    """Darkens `canvas` to the lower right of a shape."""
    shift = max(1, round(0.12 * radius))
    moved = np.pad(outside, ((shift, 0), (shift, 0)), mode="edge")[: outside.shape[0], : outside.shape[1]]
    canvas *= 1 - 0.4 * np.clip(0.5 - moved / (2 * shift), 0, 1)[..., None]


def _clouds(size: tuple[int, int], random: np.random.Generator) -> ndarray:
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
    part += change * np.clip(thickness + 0.5 - away, 0, 1)[..., None]


def _color(hue: float, saturation: float, value: float) -> ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)) * 255
