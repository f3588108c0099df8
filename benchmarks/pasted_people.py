"""Crowds out of photos with few people: people cut out by their masks and pasted half over others (for benchmarks/crowds.py)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from perpixel.data.dataset import Dataset
from perpixel.data.mask_crops import drawn_rows, patch_of
from perpixel.data.open import open_dataset
from perpixel.ops.boxes import pairwise_iou

LEAST_SIDE = 40
"""Pixels of a person's shorter side, in the photo, below which nobody is pasted or pasted on."""
PEOPLE = 3
"""Most that are pasted into a photo."""
TRIES = 10
"""Until one fits."""
OVERLAP = (0.4, 0.7)
"""IoU of the box of who is pasted with the box of who stands there."""

Cut = tuple[Image.Image, Image.Image]
"""A person alone: the pixels of the mask's bounds, and the mask."""


def cuts_of(dataset: Dataset) -> list[Cut]:
    """Every person with a mask that is large enough."""
    cuts = []
    for number in range(len(dataset)):
        record, photo = dataset.record(number), dataset.image(number)
        for row in drawn_rows(record):
            patch = patch_of(record.shapes[row], record.size)
            x1, y1, x2, y2 = patch.box
            if min(x2 - x1, y2 - y1) >= LEAST_SIDE:
                cuts.append((Image.fromarray(photo[y1:y2, x1:x2]), Image.fromarray(patch.pixels)))
    return cuts


def paste_people(annotations: Path, images: Path, out: Path, count: int, seed: int) -> Path:
    """Writes `count` photos of a COCO file with up to three more people each, and their COCO file; boxes are of whole people.

    Who is pasted is as tall as the one that is half covered, give or take a fifth, and stands as low.
    """
    dataset = open_dataset(str(annotations), str(images))
    cuts, draw = cuts_of(dataset), np.random.default_rng(seed)
    records = [dataset.record(row) for row in range(len(dataset))]
    large = [(np.diff(r.boxes.reshape(-1, 2, 2), axis=1).min((1, 2)) >= LEAST_SIDE) & ~r.crowd for r in records]
    rows = [row for row, some in enumerate(large) if some.any()]
    (out / "images").mkdir(parents=True, exist_ok=True)
    written: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for number, row in enumerate(draw.permutation(np.resize(rows, count)).tolist()):
        canvas, record = Image.fromarray(dataset.image(row)), records[row]
        standing = record.boxes[large[row]]
        found = [(box, bool(crowd)) for box, crowd in zip(record.boxes, record.crowd, strict=True)]
        wanted = len(found) + draw.integers(1, PEOPLE + 1)
        for _ in range(TRIES * PEOPLE):
            beside = standing[draw.integers(len(standing))]
            box = _pasted(canvas, cuts[draw.integers(len(cuts))], beside, draw)
            found += [] if box is None else [(box, False)]
            if len(found) == wanted:
                break
        name = f"{number:06}.jpg"
        canvas.save(out / "images" / name, quality=92)
        written["images"].append({"id": number, "file_name": name, "width": canvas.width, "height": canvas.height})
        for (x1, y1, x2, y2), crowd in ((box.tolist(), crowd) for box, crowd in found):
            bounds = [x1, y1, x2 - x1, y2 - y1]
            one = {"id": len(written["annotations"]) + 1, "image_id": number, "category_id": 1, "iscrowd": int(crowd)}
            written["annotations"].append(one | {"bbox": bounds, "area": bounds[2] * bounds[3]})
    path = out / "instances.json"
    path.write_text(json.dumps(written))
    return path


def _pasted(canvas: Image.Image, cut: Cut, beside: np.ndarray, draw: np.random.Generator) -> np.ndarray | None:
    """Pastes a person beside a box (xyxy); the person's box, or None where it would not fit as it should."""
    x1, y1, x2, y2 = beside.tolist()
    height = round((y2 - y1) * draw.uniform(0.8, 1.2))
    size = max(1, round(cut[0].width * height / cut[0].height)), height
    left = round((x1 + x2) / 2 + draw.choice([-1, 1]) * draw.uniform(0.15, 0.5) * (x2 - x1) - size[0] / 2)
    box = np.array([left, round(y2) - height, left + size[0], round(y2)], dtype=np.float32)
    inside = (box[:2] >= 0).all() and box[2] <= canvas.width and box[3] <= canvas.height
    overlap = pairwise_iou(torch.from_numpy(box[None]), torch.from_numpy(beside[None])).item()
    if not inside or not OVERLAP[0] <= overlap <= OVERLAP[1]:
        return None
    canvas.paste(cut[0].resize(size), (left, round(y2) - height), cut[1].resize(size))
    return box
