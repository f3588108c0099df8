"""The picture of docs/methods/directpose.md: where KPAlign samples, and the joints it finds (figure 4.5 of thesis 002).

    uv run perpixel train directpose_figures training.steps=400 --out runs/directpose_figures
    uv run python benchmarks/directpose_figure.py runs/directpose_figures/last.safetensors docs/images/directpose.jpg --score 0.4
    uv run python benchmarks/directpose_figure.py best.safetensors joints.png --photo street.jpg

Without --photo they are generated photos that the training on figures has not seen, a row each. Left: each person's location in
orange, and the places where its groups are sampled, a colour a person. Right: the keypoints.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from perpixel.data.figures import FiguresDataset
from perpixel.data.loader import prepare_image
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.visualize import Style, draw
from perpixel.models.detector import Detector
from perpixel.models.directpose import DirectPoseHead
from perpixel.structures import Batch, Keypoints, pad_images

COLORS = ((60, 130, 255), (30, 190, 90), (220, 60, 160), (240, 210, 40), (120, 220, 230))
ORANGE = (255, 140, 20)
SCALE = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--images", type=int, default=3, help="generated photos")
    parser.add_argument("--score", type=float, default=0.3)
    asked = parser.parse_args()
    checkpoint = load_checkpoint(asked.checkpoint)
    model = build_model(checkpoint).eval()
    assert isinstance(model, Detector) and isinstance(model.instance_head, DirectPoseHead)
    if asked.photo is not None:
        with Image.open(asked.photo) as photo:
            photos = [np.asarray(photo.convert("RGB"))]
    else:
        figures = FiguresDataset(asked.images, seed=1)
        photos = [figures.image(number) for number in range(asked.images)]
    seen = [prepare_image(photo, checkpoint.recipe.data.test)[0] for photo in photos]
    with torch.inference_mode():
        rows = [row(model, model.instance_head, image, asked.score, checkpoint.skeleton) for image in seen]
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for part in rows:
        sheet.paste(part, (0, top))
        top += part.height
    sheet.save(asked.picture, quality=88, optimize=True)
    print(f"{asked.picture}: {asked.picture.stat().st_size // 1000} kB")


def row(
    model: Detector, head: DirectPoseHead, image: torch.Tensor, score: float, skeleton: tuple[tuple[int, int], ...]
) -> Image.Image:
    """Samples and keypoints of one photo."""
    size = (image.shape[1], image.shape[2])
    batch = Batch(pad_images([image], 32), (size,), (size,))
    outputs, dense = model(model.normalized(batch))
    found, keypoints = model.duplicates.find(model.selection, outputs, batch.sizes, partial(model.describe, dense))
    assert isinstance(keypoints, Keypoints) and found.scores is not None
    sure = found.scores > score
    found, keypoints = found.rows(sure), keypoints.rows(sure)
    places = head.places(dense, found).numpy()
    colors = [COLORS[number % len(COLORS)] for number in range(len(found))]
    pixels = image.permute(1, 2, 0).numpy()
    left = Image.fromarray(pixels).resize((size[1] * SCALE, size[0] * SCALE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(left)
    for person, point in enumerate(found.points.numpy()):
        for place in places[person]:
            _dot(pen, place, colors[person], 4)
        _dot(pen, point, ORANGE, 6)
    drawn = keypoints.values.numpy().astype(np.float64)
    drawn[..., 2] = 1
    alone = Style(boxes=False, labels=False)
    boxes = found.boxes.numpy()
    right = draw(pixels, boxes, [""] * len(found), colors, keypoints=drawn, skeleton=skeleton, style=alone)
    right = right.resize(left.size, Image.Resampling.LANCZOS)
    both = Image.new("RGB", (2 * left.width + 8, left.height + 8), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + 8, 0))
    return both


def _dot(pen: ImageDraw.ImageDraw, place: np.ndarray, color: tuple[int, int, int], radius: int) -> None:
    x, y = (float(v) * SCALE for v in place)
    pen.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), fill=(0, 0, 0))
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


if __name__ == "__main__":
    main()
