"""Synthetic pictures of stick figures with exact joints: no download, the same ones for the same seed.

Figures face the viewer, so a person's left is on the right of the picture, in a mirror too. They stand, lean and wave, on the
soft background of the synthetic shapes, and hide one another. The skeleton is COCO's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray
from PIL import Image as Pillow
from PIL import ImageDraw

from perpixel.data.dataset import Image, flip_pairs
from perpixel.data.generated import GeneratedDataset, Objects
from perpixel.data.painting import hsv_color, paint_scene
from perpixel.structures import COCO_KEYPOINTS, COCO_SKELETON

_LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
_TORSO = (5, 6, 12, 11)
_LEAST_VISIBLE = 0.6


@dataclass(frozen=True)
class Figure:
    """One figure: its joints, and the mask that stays visible of it.

    Attributes:
        joints: (17, 2) x, y in pixels.
        height: pixels of a figure that stands upright.
        visible: (h, w) where it is seen.
    """

    joints: Float64[ndarray, "k 2"]
    height: float
    visible: Bool[ndarray, "h w"]


class FiguresDataset(GeneratedDataset):
    """Pictures of one to three figures, all persons."""

    form = "figures"
    all_classes = ("person",)
    smallest = 64
    most_objects = 3
    keypoint_names = COCO_KEYPOINTS
    flip_pairs = flip_pairs(COCO_KEYPOINTS)
    skeleton = COCO_SKELETON

    def objects(self, index: int) -> Objects:
        """The figures of image `index`; joints outside it are absent, those under another figure hidden."""
        figures = self._figures(index)
        return Objects(
            ("person",) * len(figures),
            tuple(figure.visible for figure in figures),
            np.stack([_keypoints(figure) for figure in figures]),
        )

    def image(self, index: int) -> Image:
        """The pixels of image `index`."""
        random = np.random.default_rng([self.seed, index, 1])
        canvas = Pillow.fromarray(paint_scene((), self.size, random))
        for figure in self._figures(index):
            _paint(canvas, figure, random)
        return np.array(canvas)

    def _figures(self, index: int) -> tuple[Figure, ...]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return _lay_out(self.size, self.seed, index, self.most_objects)


@lru_cache(maxsize=4)
def _lay_out(size: tuple[int, int], seed: int, index: int, most: int) -> tuple[Figure, ...]:
    """Figures laid down one upon the other, and what stays visible of each."""
    random = np.random.default_rng([seed, index, 0])
    figures: list[Figure] = []
    areas: list[int] = []
    wanted = int(random.integers(1, most + 1))
    for _ in range(3 * wanted):
        if len(figures) == wanted:
            break
        height = float(random.uniform(0.4, 0.85) * min(size))
        middle = random.uniform(0.25 * height, np.array(size[::-1]) - 0.25 * height)
        turn = random.normal(0, 0.3)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        joints = height * pose(random) @ rotation + middle
        mask = _silhouette(joints, height, size)
        left = [old.visible & ~mask for old in figures]
        hides = any(rest.sum() < _LEAST_VISIBLE * area for rest, area in zip(left, areas, strict=True))
        if mask.any() and not hides:
            figures = [Figure(old.joints, old.height, rest) for old, rest in zip(figures, left, strict=True)]
            figures.append(Figure(joints, height, mask))
            areas.append(int(mask.sum()))
    return tuple(figures)


def pose(random: np.random.Generator) -> Float64[ndarray, "17 2"]:
    """Joints (x, y) of a figure of height 1 around (0, 0): arms and legs turned outward and bent at random."""
    joints = np.zeros((17, 2))
    joints[0] = (0, -0.39)
    joints[1:5] = [(0.03, -0.42), (-0.03, -0.42), (0.065, -0.4), (-0.065, -0.4)]
    for side, first in ((1, 5), (-1, 6)):
        joints[first], joints[first + 6] = (side * 0.11, -0.26), (side * 0.075, 0.03)
        arm, leg = random.uniform(-0.2, 2.4), random.uniform(-0.1, 0.7)
        elbow, knee = arm + random.uniform(-1.2, 1.2), leg + random.uniform(-0.5, 0.3)
        joints[first + 2] = joints[first] + 0.16 * _down(side, arm)
        joints[first + 4] = joints[first + 2] + 0.15 * _down(side, elbow)
        joints[first + 8] = joints[first + 6] + 0.23 * _down(side, leg)
        joints[first + 10] = joints[first + 8] + 0.22 * _down(side, knee)
    return joints


def _down(side: int, outward: float) -> Float64[ndarray, " 2"]:
    """A unit step down, turned outward by so many radians."""
    return np.array([side * np.sin(outward), np.cos(outward)])


def _keypoints(figure: Figure) -> Float64[ndarray, "17 3"]:
    """x, y, visibility: 0 outside the image, 1 under another figure, 2 seen."""
    height, width = figure.visible.shape
    out = np.zeros((len(COCO_KEYPOINTS), 3))
    for joint, (x, y) in enumerate(figure.joints):
        if 0 <= x < width and 0 <= y < height:
            out[joint] = (x, y, 2 if figure.visible[int(y), int(x)] else 1)
    return out


def _silhouette(joints: Float64[ndarray, "17 2"], height: float, size: tuple[int, int]) -> Bool[ndarray, "h w"]:
    canvas = Pillow.new("L", (size[1], size[0]))
    _draw(ImageDraw.Draw(canvas), joints, height, [255] * len(_LIMBS), 255, 255)
    return np.array(canvas) > 0


def _paint(canvas: Pillow.Image, figure: Figure, random: np.random.Generator) -> None:
    """Shirt, trousers and skin in colours of their own; eyes and nose as dark dots. Later figures cover earlier ones."""
    shirt, trousers = (_color(random.uniform(), random.uniform(0.5, 1), random.uniform(0.4, 1)) for _ in range(2))
    skin = _color(random.uniform(0.03, 0.1), random.uniform(0.3, 0.6), random.uniform(0.5, 1))
    pen = ImageDraw.Draw(canvas)
    _draw(pen, figure.joints, figure.height, [shirt, skin, shirt, skin, *[trousers] * 4], shirt, skin)
    dot = max(0.6, 0.012 * figure.height)
    for x, y in figure.joints[:3]:
        pen.ellipse((x - dot, y - dot, x + dot, y + dot), fill=(20, 20, 30))


def _color(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(int(part) for part in hsv_color(hue, saturation, value))


def _draw(
    pen: ImageDraw.ImageDraw,
    joints: Float64[ndarray, "17 2"],
    height: float,
    limbs: Sequence[Any],
    torso: Any,
    head: Any,
) -> None:
    """The figure in one colour a limb."""
    half = max(1.0, 0.03 * height)
    pen.polygon([tuple(joints[joint]) for joint in _TORSO], fill=torso)
    for (first, second), color in zip(_LIMBS, limbs, strict=True):
        pen.line([tuple(joints[first]), tuple(joints[second])], fill=color, width=round(2 * half))
        for x, y in joints[[first, second]]:
            pen.ellipse((x - half, y - half, x + half, y + half), fill=color)
    x, y = joints[:5].mean(axis=0)
    radius = 0.075 * height
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=head)
