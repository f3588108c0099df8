"""Synthetic shapes in front of sky, grass and water: exact panoptic truth, the same pictures for the same seed."""

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from perpixel.data.dataset import Image
from perpixel.data.painting import Canvas, clouds, hsv_color, paint_on
from perpixel.data.shapes import ShapesDataset
from perpixel.structures import Stuff

SKY, GRASS, WATER = 0, 1, 2


class ScenesDataset(ShapesDataset):
    """`count` pictures of shapes in front of stuff; the objects are those of `ShapesDataset`, every pixel's class is known."""

    form = "scenes"
    stuff = Stuff(("sky", "grass", "water"), (101, 102, 103))

    def image(self, index: int) -> Image:
        """The pixels of image `index`."""
        pieces, _ = self._scene(index)
        random = np.random.default_rng([self.seed, index, 1])
        return paint_on(_painted(self._ground(index), random), pieces, random)

    def stuff_map(self, index: int) -> UInt8[ndarray, "h w"]:
        """Of every pixel: 0 an object, s + 1 stuff of class s."""
        out = self._ground(index) + np.uint8(1)
        for mask in self._scene(index)[1]:
            out[mask] = 0
        return out

    def _ground(self, index: int) -> UInt8[ndarray, "h w"]:
        """The stuff of every pixel, those behind shapes too: sky above a wavy horizon, grass below, a pond in most of it."""
        random = np.random.default_rng([self.seed, index, 2])
        height, width = self.size
        y, x = np.mgrid[:height, :width] + 0.5
        horizon = height * (random.uniform(0.25, 0.6) + _wave(x / width, 0.06, random))
        out = np.where(y < horizon, SKY, GRASS).astype(np.uint8)
        middle = (random.uniform(0.15, 0.85) * width, random.uniform(0.7, 0.95) * height)
        radii = (random.uniform(0.2, 0.45) * width, random.uniform(0.1, 0.22) * height)
        angle = np.arctan2(y - middle[1], x - middle[0]) / (2 * np.pi)
        away = np.hypot((x - middle[0]) / radii[0], (y - middle[1]) / radii[1])
        if random.uniform() < 0.75:
            out[(away < 1 + _wave(angle, 0.12, random)) & (out == GRASS)] = WATER
        return out


def _wave(at: Float64[ndarray, "h w"], strength: float, random: np.random.Generator) -> Float64[ndarray, "h w"]:
    """A sum of waves over 0..1 with whole numbers of periods."""
    waves = [np.sin(2 * np.pi * (k * at + random.uniform())) * random.uniform(0.3, 1) / k for k in (1, 2, 3)]
    return strength * np.sum(waves, axis=0)


def _painted(ground: UInt8[ndarray, "h w"], random: np.random.Generator) -> Canvas:
    """Each kind of stuff in its own hues and texture."""
    size = (ground.shape[0], ground.shape[1])
    y, x = np.mgrid[: size[0], : size[1]]
    blades = random.normal(0, 1, size) + random.normal(0, 1, (1, size[1]))
    ripples = np.sin(2 * np.pi * (y + 2 * clouds(size, random)) / random.uniform(4, 8) + 0.02 * x)
    textures = (
        (0.58, 0.15, 0.95, 0.56, 0.55, 0.85, 0.5 + 0.6 * clouds(size, random)),
        (0.27, 0.65, 0.6, 0.30, 0.8, 0.35, 0.5 + 0.15 * blades + 0.3 * clouds(size, random)),
        (0.55, 0.75, 0.65, 0.6, 0.85, 0.4, 0.5 + 0.25 * ripples),
    )
    canvas = np.zeros((*size, 3), dtype=np.float32)
    for stuff, (hue, saturation, value, hue2, saturation2, value2, pattern) in enumerate(textures):
        turn = random.normal(0, 0.02)
        light, dark = hsv_color(hue + turn, saturation, value), hsv_color(hue2 + turn, saturation2, value2)
        share = np.clip(pattern, 0, 1)[..., None]
        inside = ground == stuff
        canvas[inside] = (light * (1 - share) + dark * share)[inside]
    return canvas
