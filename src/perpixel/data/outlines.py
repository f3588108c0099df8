"""The outlines of the synthetic shapes, as distances."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

SHAPES = ("disc", "square", "triangle", "star", "ring", "cross")
Window = tuple[slice, slice]
_MARGIN = 0.3


@dataclass(frozen=True)
class Piece:
    """One shape of a picture.

    Attributes:
        shape: one of `SHAPES`.
        center: (x, y) in pixels.
        radius: pixels from the centre to the farthest tip, roughly.
        turn: radians.
    """

    shape: str
    center: tuple[float, float]
    radius: float
    turn: float

    def window(self, size: tuple[int, int]) -> Window:
        """Rows and columns of an image of (height, width) that hold the shape and its shadow."""
        reach = (1.2 + _MARGIN) * self.radius + 3
        x, y = self.center
        rows = slice(max(0, int(y - reach)), min(size[0], int(y + reach) + 1))
        return rows, slice(max(0, int(x - reach)), min(size[1], int(x + reach) + 1))

    def offsets(self, window: Window) -> tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"]]:
        """x and y of each pixel's centre, from the shape's centre."""
        y, x = np.mgrid[window].astype(np.float32) + np.float32(0.5)
        return x - np.float32(self.center[0]), y - np.float32(self.center[1])

    def distance(self, window: Window) -> Float32[ndarray, "h w"]:
        """Pixels from each pixel's centre to the outline, negative inside (nearly Euclidean near the outline)."""
        dx, dy = self.offsets(window)
        cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        radius = np.float32(self.radius)
        wide, narrow = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
        match self.shape:
            case "disc":
                return np.hypot(u, v) - radius
            case "ring":
                return np.abs(np.hypot(u, v) - np.float32(0.76) * radius) - np.float32(0.24) * radius
            case "square":
                return wide - np.float32(0.8) * radius
            case "cross":
                return np.maximum(wide - np.float32(0.95) * radius, narrow - np.float32(0.3) * radius)
            case "triangle":
                return _spikes(u, v, 3, self.radius, 0.5)
            case _:
                return _spikes(u, v, 5, self.radius, 0.45)


def _spikes(
    u: Float32[ndarray, "h w"], v: Float32[ndarray, "h w"], count: int, radius: float, waist: float
) -> Float32[ndarray, "h w"]:
    """A star of `count` tips at `radius` whose notches lie at `waist * radius`; every half tip is folded onto one."""
    half = np.float32(np.pi / count)
    angle = np.abs((np.arctan2(v, u) + half) % (2 * half) - half)
    reach = np.hypot(u, v)
    x, y = reach * np.cos(angle), reach * np.sin(angle)
    edge_x, edge_y = waist * radius * np.cos(np.pi / count) - radius, waist * radius * np.sin(np.pi / count)
    scale = np.hypot(edge_x, edge_y)
    return (x - np.float32(radius)) * np.float32(edge_y / scale) - y * np.float32(edge_x / scale)
