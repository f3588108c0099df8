"""The picture of docs/methods/pointins.md: one template, several boxes, the features and masks they give (the paper's figure 5).

    uv run perpixel train pointins_shapes --out runs/pointins_shapes
    uv run python benchmarks/pointins_figure.py runs/pointins_shapes/best.safetensors docs/images/pointins_boxes.png

The photo is a generated one that the training has not seen. All columns share the point (the dot) and its template; what
differs is the box, and with it the numbers I^z.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from perpixel.data.geometry import whole
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.lettering import label_font
from perpixel.models.detector import Detector
from perpixel.models.pointins import PointINSHead
from perpixel.ops.boxes import pairwise_iou
from perpixel.ops.masks import spread_over_boxes
from perpixel.ops.sampling import patches_at
from perpixel.structures import Batch, Candidates, pad_images

ENLARGED, GAP, CAPTION, MARGIN = 2, 12, 22, 150
DOT, BOX = (230, 0, 90), (255, 140, 0)
ROWS = ("photo, point and box", "template: mean of\nits channels", "feature after the\nconvolution: norm", "mask")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--image", type=int, help="number of the photo; by default the one whose objects are nearest")
    asked = parser.parse_args()
    model = build_model(load_checkpoint(asked.checkpoint)).eval()
    assert isinstance(model, Detector) and isinstance(model.instance_head, PointINSHead)
    images = range(40) if asked.image is None else (asked.image,)
    scenes = [scene(model, ShapesDataset(100, seed=asked.seed), image) for image in images]
    photo, dense, candidates, score = max(scenes, key=lambda found: found[3])
    sheet = draw(model.instance_head, photo, dense, candidates)
    sheet.quantize(256, dither=Image.Dither.NONE).save(asked.picture, optimize=True)
    print(f"{asked.picture}: {asked.picture.stat().st_size // 1000} kB, score of the pair {score:.2f}")


@torch.inference_mode()
def scene(model: Detector, dataset: ShapesDataset, image: int) -> tuple[np.ndarray, tuple, Candidates, float]:
    """A photo, and one of its points with four boxes: two objects', the first one's drawn larger and moved."""
    record = dataset.record(image)
    size = (128, round(128 * record.size[1] / record.size[0]))
    photo = whole(record.size, size).image(dataset.image(image))
    batch = Batch(pad_images([torch.from_numpy(photo).permute(2, 0, 1)], 32), (size,), (record.size,))
    outputs, dense = model(model.normalized(batch))
    found = model.selection.choose(outputs, (size,))
    assert found.scores is not None
    near = pairwise_iou(found.boxes, found.boxes).fill_diagonal_(0)
    worth = found.scores[:, None] * found.scores[None] * ((near > 0.1) & (near < 0.45))
    first, second = divmod(int(worth.argmax()), len(found))
    box, other = found.boxes[first], found.boxes[second]
    side = (box[2:] - box[:2]).repeat(2)
    larger = box + 0.15 * side * torch.tensor([-1, -1, 1, 1])
    moved = box + 0.2 * side * torch.tensor([1, 1, 1, 1])
    point = found.rows(torch.full((4,), first))
    boxes = torch.stack([box, other, larger, moved])
    return photo, dense, replace(point, boxes=boxes), float(worth.max())


@torch.inference_mode()
def draw(head: PointINSHead, photo: np.ndarray, dense: tuple, candidates: Candidates) -> Image.Image:
    patches = patches_at(dense, candidates, head.config.kernel)
    templates = head.templates(patches)
    middle = head.config.kernel // 2
    indicator = head.config.indicator.of(candidates, patches[:, :, middle, middle])
    features = head.instance_features(templates, head.instance_weights(indicator))
    masks = head.mask(features).sigmoid()
    size = (photo.shape[0], photo.shape[1])
    pictures = [photo.astype(np.float32) / 255] * len(candidates)
    maps = [_scaled(templates.mean(dim=1)), _scaled(features.norm(dim=1)), masks]
    rows = [
        pictures,
        *([_shown(cells, box, size, photo) for cells, box in zip(m, candidates.boxes, strict=True)] for m in maps),
    ]
    height, width = size[0] * ENLARGED, size[1] * ENLARGED
    columns = len(candidates)
    sheet = Image.new("RGB", (MARGIN + columns * (width + GAP), CAPTION + len(rows) * (height + GAP)), "white")
    captions = ("the box it predicts", "another object's box", "its box, larger", "its box, moved")
    pen, font = ImageDraw.Draw(sheet), label_font(13, [*ROWS, *captions])
    for j, text in enumerate(captions):
        pen.text((MARGIN + j * (width + GAP), 3), text, fill="black", font=font)
    for i, row in enumerate(rows):
        top = CAPTION + i * (height + GAP)
        pen.text((6, top + height // 3), ROWS[i], fill="black", font=font)
        for j, cells in enumerate(row):
            picture = Image.fromarray((255 * np.clip(cells, 0, 1)).astype(np.uint8)).resize((width, height))
            over = ImageDraw.Draw(picture)
            over.rectangle([float(v) * ENLARGED for v in candidates.boxes[j]], outline=BOX, width=2)
            x, y = (float(v) * ENLARGED for v in candidates.points[j])
            over.ellipse([x - 4, y - 4, x + 4, y + 4], fill=DOT)
            sheet.paste(picture, (MARGIN + j * (width + GAP), top))
    return sheet


def _scaled(maps: torch.Tensor) -> torch.Tensor:
    """Each map from 0 to 1."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-6)


def _shown(cells: torch.Tensor, box: torch.Tensor, size: tuple[int, int], photo: np.ndarray) -> np.ndarray:
    """A map over its box, white where it is high and dark blue where low, on the faded photo."""
    values = spread_over_boxes(cells[None], box[None], size)[0].numpy()
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    x1, y1, x2, y2 = box.tolist()
    inside = ((x > x1) & (x < x2) & (y > y1) & (y < y2))[:, :, None]
    shade = np.stack([values, values, 0.35 + 0.65 * values], axis=2)
    return np.where(inside, shade, 0.6 + 0.4 * photo / 255)


if __name__ == "__main__":
    main()
