"""Time and mask AP of trained checkpoints at several sizes of the photo: a table and a plot, as figure 6 of PointINS.

    uv run python benchmarks/speed_accuracy.py CondInst=runs/a/last.safetensors PointINS=runs/b/last.safetensors \
        --sides 160 208 256 --out docs/images/speed_accuracy.svg

Time is that of the network, NMS and the masks of the photo, a photo at a time, the checkpoints taking turns; its median over the
photos of the checkpoints' own validation split.
"""

import argparse
import html
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from perpixel.data.loader import test_batches
from perpixel.data.open import open_dataset
from perpixel.data.settings import DataConfig, TestSize
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.instances import Instances
from perpixel.engine.metrics import coco_metrics
from perpixel.models.heads import Model

COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2")
WIDTH, HEIGHT, LEFT, BOTTOM = 560, 340, 55, 45

Point = tuple[int, float, float]
"""Short side, milliseconds, AP."""


def measure(
    models: dict[str, Model], data: DataConfig, side: int, classes: tuple[str, ...], most: int
) -> dict[str, Point]:
    """Every model's time and mask AP at one size."""
    assert data.val is not None
    dataset = open_dataset(data.val, data.val_images, classes=classes, skip_bad=True)
    data = replace(data, workers=0, test=TestSize(side, side * 3 // 2))
    truth = dataset.coco_truth()
    times: dict[str, list[float]] = {name: [] for name in models}
    results: dict[str, list] = {name: [] for name in models}
    for batch in test_batches(dataset, data, batch_size=1):
        for name, model in models.items():
            began = time.perf_counter()
            (found,) = model.predict(batch)
            instances = Instances.from_detections(found, batch.originals[0], dataset.classes)
            rows = instances.to_coco(truth["images"][batch.ids[0]]["id"], dataset.category_ids)
            times[name].append(1000 * (time.perf_counter() - began))
            results[name] += rows
    return {
        name: (side, median(times[name]), 100 * coco_metrics(truth, results[name], "segm", most).summary["AP"])
        for name in models
    }


def plot(curves: dict[str, list[Point]], title: str) -> str:
    """Milliseconds to the right, AP upwards; one line a checkpoint, its sizes beside the points."""
    slowest = 1.1 * max(p[1] for points in curves.values() for p in points)
    best = 1.15 * max(p[2] for points in curves.values() for p in points)
    across = lambda ms: LEFT + (WIDTH - LEFT - 60) * ms / slowest  # noqa: E731
    up = lambda ap: HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 30) * ap / best  # noqa: E731
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><text x="{LEFT}" y="18">{html.escape(title)}</text>',
    ]
    for tick in range(5):
        ms, ap = slowest * tick / 4, best * tick / 4
        parts.append(f'<path d="M{LEFT} {up(ap):.1f}H{WIDTH - 60}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{up(ap) + 4:.1f}" text-anchor="end">{ap:.0f}</text>')
        parts.append(f'<text x="{across(ms):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{ms:.0f}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">ms a photo; upwards: mask AP</text>')
    for color, (name, points) in zip(COLORS, curves.items(), strict=False):
        line = " ".join(f"{across(ms):.1f},{up(ap):.1f}" for _, ms, ap in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        for side, ms, ap in points:
            parts.append(f'<circle cx="{across(ms):.1f}" cy="{up(ap):.1f}" r="4" fill="{color}"/>')
            parts.append(f'<text x="{across(ms) + 6:.1f}" y="{up(ap) + 14:.1f}" fill="{color}">{side}</text>')
        _, ms, ap = points[-1]
        parts.append(
            f'<text x="{across(ms) - 8:.1f}" y="{up(ap) - 10:.1f}" fill="{color}" text-anchor="middle">{name}</text>'
        )
    return "".join(parts) + "</svg>\n"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--sides", type=int, nargs="+", default=(160, 208, 256))
    parser.add_argument("--most", type=int, help="detections counted an image; COCO's 100 by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    loaded = {name: load_checkpoint(path) for name, path in (given.split("=", 1) for given in asked.checkpoints)}
    models = {name: build_model(checkpoint).eval() for name, checkpoint in loaded.items()}
    first = next(iter(loaded.values()))
    curves: dict[str, list[Point]] = {name: [] for name in models}
    print("| short side | " + " | ".join(f"{name}, ms | mask AP" for name in models) + " |")
    print("| ---: |" + " ---: |" * (2 * len(models)))
    for side in sorted(asked.sides):
        found = measure(models, first.recipe.data, side, first.class_names, asked.most)
        for name, point in found.items():
            curves[name].append(point)
        print(f"| {side} | " + " | ".join(f"{ms:.0f} | {ap:.1f}" for _, ms, ap in found.values()) + " |", flush=True)
    asked.out.write_text(plot(curves, f"{first.recipe.data.val and Path(first.recipe.data.val).parts[-3]}, mask AP"))


if __name__ == "__main__":
    main()
