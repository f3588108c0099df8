"""The picture of docs/methods/smalmask.md: where SmalMask's predictors read for three objects of a generated photo.

    uv run python benchmarks/smalmask_figure.py docs/images/smalmask_samples.png

Nothing is trained: the samples of RoIPred follow from the boxes, those of a plain convolution from the point and the level. A
square around a sample is the cell of the map that is read there.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from perpixel.data.shapes import ShapesDataset
from perpixel.engine.lettering import label_font
from perpixel.ops.box_sampling import bin_centers, kernel_places, level_of_size

ENLARGED, GAP, CAPTION = 3, 14, 26
COLORS = ((230, 0, 90), (255, 140, 0), (0, 110, 220))
STRIDES, LENGTH = (8, 16, 32), 64.0
OBJECTS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--image", type=int, help="number of the photo; by default the one whose objects differ most")
    asked = parser.parse_args()
    dataset = ShapesDataset(60, seed=asked.seed)
    images = range(len(dataset)) if asked.image is None else (asked.image,)
    number = max(images, key=lambda image: variety(boxes_of(dataset, image)))
    boxes = boxes_of(dataset, number)
    photo = Image.fromarray(dataset.image(number))
    level = level_of_size(boxes, LENGTH, len(STRIDES))
    steps = torch.tensor(STRIDES)[level].float()
    # One cell above and left of the middle one: as likely a location of the detector as any within 1.5 strides.
    points = (torch.floor((boxes[:, :2] + boxes[:, 2:]) / 2 / steps[:, None]) - 0.5) * steps[:, None]
    columns = {
        "Conv 5x5: around the point": kernel_places(points, steps, 5),
        "RoIPred 3x3: parts of the box": bin_centers(boxes, 3),
        "RoIPred 5x5": bin_centers(boxes, 5),
    }
    width, height = photo.width * ENLARGED, photo.height * ENLARGED
    sheet = Image.new("RGB", (len(columns) * (width + GAP) - GAP, CAPTION + height), "white")
    pen, font = ImageDraw.Draw(sheet), label_font(15, list(columns))
    for column, (caption, places) in enumerate(columns.items()):
        left = column * (width + GAP)
        pen.text((left, 4), caption, fill="black", font=font)
        sheet.paste(drawn(photo, boxes, points, steps, places), (left, CAPTION))
    sheet.quantize(256, dither=Image.Dither.NONE).save(asked.picture, optimize=True)
    print(f"{asked.picture}: {asked.picture.stat().st_size // 1000} kB, photo {number}, levels {level.tolist()}")


def boxes_of(dataset: ShapesDataset, image: int) -> Tensor:
    """The largest, the smallest and the longest of a photo's boxes."""
    boxes = torch.from_numpy(dataset.record(image).boxes)
    if len(boxes) < OBJECTS:
        return boxes[:0]
    sides = boxes[:, 2:] - boxes[:, :2]
    order = sides.prod(dim=1).argsort(descending=True)
    rest = order[1:-1]
    longest = rest[(sides[rest].amax(dim=1) / sides[rest].amin(dim=1)).argmax()]
    return boxes[torch.stack([order[0], order[-1], longest])]


def variety(boxes: Tensor) -> float:
    """How much three boxes differ in size and shape; those that overlap count less."""
    if not len(boxes):
        return 0.0
    large, small, long = boxes[:, 2:] - boxes[:, :2]
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2).triu(1).sum()
    return float((large.prod() / small.prod()).log() + (long.amax() / long.amin()).log() - 0.01 * shared)


def drawn(photo: Image.Image, boxes: Tensor, points: Tensor, steps: Tensor, places: Tensor) -> Image.Image:
    """The faded photo with each object's box, its point as a cross, and the samples as dots in their cells."""
    size = (photo.width * ENLARGED, photo.height * ENLARGED)
    white = Image.new("RGB", size, "white")
    picture = Image.blend(photo.resize(size, Image.Resampling.BICUBIC), white, 0.45)
    pen = ImageDraw.Draw(picture)
    for color, box, point, step, mine in zip(COLORS, boxes, points, steps, places, strict=True):
        pen.rectangle([float(v) * ENLARGED for v in box], outline=color, width=3)
        for x, y in mine.flatten(0, 1).tolist():
            half = float(step) / 2
            pen.rectangle([ENLARGED * v for v in (x - half, y - half, x + half, y + half)], outline=color, width=1)
        for x, y in (mine.flatten(0, 1) * ENLARGED).tolist():
            pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=color)
        x, y = (point * ENLARGED).tolist()
        pen.line([x - 8, y - 8, x + 8, y + 8], fill="black", width=3)
        pen.line([x - 8, y + 8, x + 8, y - 8], fill="black", width=3)
    return picture


if __name__ == "__main__":
    main()
