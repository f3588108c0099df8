"""Synthetic pictures of crowds with exact truth: people in groups, so close that many boxes overlap by more than half.

Boxes are of whole bodies, the part behind others too, as CrowdHuman has them; masks are what is visible.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from PIL import Image as Pillow
from PIL import ImageDraw

from perpixel.data.dataset import Image
from perpixel.data.generated import GeneratedDataset, Objects
from perpixel.data.painting import hsv_color, paint_scene

_WIDTH = 0.42
_LEAST_VISIBLE = 0.15
_OUTLINE = (25, 25, 35)
Color = tuple[int, ...]


@dataclass(frozen=True)
class Person:
    """One person, upright.

    Attributes:
        middle: x in pixels.
        feet: y in pixels.
        height: in pixels.
    """

    middle: float
    feet: float
    height: float

    def draw(self, pen: ImageDraw.ImageDraw, shirt: Color, trousers: Color, skin: Color, outline: Color) -> None:
        """Legs, body and head."""
        half, top = self.height * _WIDTH / 2, self.feet - self.height
        hip, neck = top + 0.58 * self.height, top + 0.17 * self.height
        for side in (-1, 1):
            x = sorted((self.middle + side * 0.08 * half, self.middle + side * 0.75 * half))
            pen.rectangle((x[0], hip, x[1], self.feet), fill=trousers, outline=outline)
        shoulders = (self.middle - half, neck, self.middle + half, top + 0.66 * self.height)
        pen.rounded_rectangle(shoulders, radius=0.6 * half, fill=shirt, outline=outline)
        head = (self.middle - 0.45 * half, top, self.middle + 0.45 * half, top + 0.2 * self.height)
        pen.ellipse(head, fill=skin, outline=outline)

    def silhouette(self, size: tuple[int, int]) -> Bool[ndarray, "h w"]:
        """Where the person is, hidden or not, in an image of (height, width)."""
        canvas = Pillow.new("L", (size[1], size[0]))
        on = (255,)
        self.draw(ImageDraw.Draw(canvas), on, on, on, on)
        return np.array(canvas) > 0


Crowd = tuple[tuple[Person, ...], tuple[Bool[ndarray, "h w"], ...]]


class CrowdsDataset(GeneratedDataset):
    """Pictures of two to four groups of one to three people."""

    form = "crowds"
    all_classes = ("person",)
    smallest = 64
    most_objects = 12

    def objects(self, index: int) -> Objects:
        """The people of image `index`, farthest first."""
        people, visible = self._crowd(index)
        whole = tuple(person.silhouette(self.size) for person in people)
        return Objects(("person",) * len(people), visible, whole=whole)

    def image(self, index: int) -> Image:
        """The pixels of image `index`."""
        random = np.random.default_rng([self.seed, index, 1])
        canvas = Pillow.fromarray(paint_scene((), self.size, random))
        pen = ImageDraw.Draw(canvas)
        for person in self._crowd(index)[0]:
            shirt, trousers = (_color(random.uniform(), random.uniform(0.4, 1), random.uniform(0.4, 1)) for _ in "ab")
            skin = _color(random.uniform(0.03, 0.1), random.uniform(0.3, 0.6), random.uniform(0.5, 1))
            person.draw(pen, shirt, trousers, skin, _OUTLINE)
        return np.array(canvas)

    def _crowd(self, index: int) -> Crowd:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return _lay_out(self.size, self.seed, index)


@lru_cache(maxsize=4)
def _lay_out(size: tuple[int, int], seed: int, index: int) -> Crowd:
    """People from the farthest to the nearest, by their feet, and what stays visible of each."""
    random = np.random.default_rng([seed, index, 0])
    people: list[Person] = []
    for _ in range(int(random.integers(2, 5))):
        height = float(random.uniform(0.35, 0.65) * min(size))
        middle = float(random.uniform(0.3 * height, size[1] - 0.3 * height))
        feet = float(random.uniform(0.9 * height, size[0] - 1))
        for _ in range(int(random.integers(1, 4))):
            joined = sorted([*people, Person(middle, feet, height)], key=lambda person: person.feet)
            if min(_shares_visible(joined, size)) >= _LEAST_VISIBLE:
                people = joined
            # The next one stands a little beside the last: boxes of one height then overlap by 0.41 to 0.69.
            step = random.uniform(0.18, 0.42) * _WIDTH * height
            middle += float(random.choice([-1, 1]) * step)
            feet += float(random.uniform(-0.04, 0.04) * height)
            height *= float(random.uniform(0.94, 1.06))
    return tuple(people), tuple(_visible(people, size))


def _visible(people: list[Person], size: tuple[int, int]) -> list[Bool[ndarray, "h w"]]:
    """What is seen of each; later people stand before earlier ones."""
    masks, hidden = [], np.zeros(size, dtype=bool)
    for person in reversed(people):
        whole = person.silhouette(size)
        masks.append(whole & ~hidden)
        hidden |= whole
    return masks[::-1]


def _shares_visible(people: list[Person], size: tuple[int, int]) -> list[float]:
    """Of each body's drawn area; 0 of one outside the image."""
    masks = _visible(people, size)
    return [
        float(mask.sum() / max(person.silhouette(size).sum(), 1)) for mask, person in zip(masks, people, strict=True)
    ]


def _color(hue: float, saturation: float, value: float) -> Color:
    return tuple(int(part) for part in hsv_color(hue, saturation, value))
