"""One box a cell against two, with and without Set NMS, where people stand close together (thesis 002, 3.3.5).

    python benchmarks/crowds.py --out runs/crowds --picture docs/images/crowds.png
    python benchmarks/crowds.py --out runs/crowds --data DATA --sets person pasted

Synthetic crowds from random weights; people on COCO photos, where `DATA` has them, from ImageNet's: as they are, and with more
people pasted half over others (`pasted_people.py`), in training and test photos apart. FCOS is trained with one box a cell and
with two, on the same batches; the second is measured with NMS and with Set NMS. The nearest centre decides and NMS is at 0.5
everywhere. "Crowded" are objects that another overlaps by more than half; recalls are at one false positive an image. A line of
JSON a row goes to OUT/results.jsonl; a training that OUT holds goes on where it stopped. The picture shows photos on which two
boxes a cell find most people that one misses.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pasted_people import paste_people
from PIL import Image
from real_data import PIXELS

from perpixel.config import override
from perpixel.data.crowds import CrowdsDataset
from perpixel.data.dataset import Dataset
from perpixel.data.open import open_dataset
from perpixel.data.settings import DataConfig, TestSize
from perpixel.engine.crowd_metrics import CrowdImage, CrowdMetrics, crowd_images, matching, metrics_of
from perpixel.engine.recipe import Recipe
from perpixel.engine.report import evaluate_checkpoint
from perpixel.engine.train import train
from perpixel.engine.visualize import Style, draw
from perpixel.nn.backbones import Backbone
from perpixel.recipes import get_recipe

SETTINGS = ["model.head.prefer=nearest", "model.selection.iou=0.5", "training.evaluate_every=null"]
ROWS = {"one box a cell": (1, "BoxNMS"), "two, NMS": (2, "BoxNMS"), "two, Set NMS": (2, "SetNMS")}
"""Boxes a cell, and what tells duplicates."""
GREEN, RED, ORANGE = (30, 200, 80), (230, 40, 40), (255, 170, 0)
SHOWN = 5


@dataclass(frozen=True)
class Measured:
    """What one row found on a data set."""

    images: list[CrowdImage]
    metrics: CrowdMetrics
    box_ap: float


def warmup(recipe: Recipe, steps: int) -> int:
    """The recipe's, but at most a fifth of the steps."""
    return min(recipe.training.warmup_steps, steps // 5)


def synthetic(arguments: argparse.Namespace) -> Recipe:
    """The small recipe; its training pictures are painted once, which takes longer than to learn from them."""
    recipe = override(get_recipe("fcos_crowds"), SETTINGS)
    photos = arguments.out / "crowds_1000_0"
    if not (photos / "instances.json").is_file():
        CrowdsDataset(1000, seed=0).write_coco(photos)
    data = replace(recipe.data, train=str(photos / "instances.json"), workers=0)
    steps = arguments.steps or recipe.training.steps
    training = replace(recipe.training, steps=steps, warmup_steps=warmup(recipe, steps), seed=arguments.seed)
    return replace(recipe, data=data, training=training)


def person(arguments: argparse.Namespace) -> Recipe:
    """Photos of people as they are."""
    root = arguments.data / "coco_person"
    train_file, test_file = crowded_split(
        root / "annotations", (*NOT_PASTED, "person_train_masks"), arguments.out / "person"
    )
    return photos_of_people(arguments, train_file, root / "images", test_file, root / "images")


def pasted(arguments: argparse.Namespace) -> Recipe:
    """Photos with people pasted over others; who is in training photos is in no test photo."""
    root, files = arguments.data / "coco_person", {}
    for name, source, count, seed in (("train", "person_train_masks", 1500, 5), ("test", "person_val", 250, 4)):
        folder = arguments.out / f"pasted_{name}"
        files[name] = folder / "instances.json"
        if not files[name].is_file():
            paste_people(root / f"annotations/{source}.json", root / "images", folder, count, seed)
    folders = {name: file.parent / "images" for name, file in files.items()}
    return photos_of_people(arguments, files["train"], folders["train"], files["test"], folders["test"])


def photos_of_people(
    arguments: argparse.Namespace, train_file: Path, photos: Path, test_file: Path, test_photos: Path
) -> Recipe:
    """Small photos, few steps: what a processor does in minutes."""
    steps, side = arguments.steps or 200, 192
    recipe = override(get_recipe("fcos_mobilenetv2"), SETTINGS)
    weights = str(arguments.data / "weights/mobilenet_v2_google_qat_dequant_bnfolded.npz")
    backbone = Backbone("mobilenetv2_100", weights=weights, frozen_stages=0)
    augment = replace(recipe.data.augment, short_sides=(side * 3 // 4, side * 7 // 8, side), max_side=side * 3 // 2)
    data = DataConfig(
        train=str(train_file),
        val=str(test_file),
        images=str(photos),
        val_images=str(test_photos),
        workers=0,
        augment=augment,
        test=TestSize(side, side * 3 // 2),
    )
    warm = warmup(recipe, steps)
    training = replace(recipe.training, steps=steps, warmup_steps=warm, save_every=steps, seed=arguments.seed)
    return replace(recipe, model=replace(recipe.model, backbone=backbone, pixels=PIXELS), data=data, training=training)


def crowded_split(annotations: Path, names: Sequence[str], out: Path) -> tuple[Path, Path]:
    """Photos of two people or more: to evaluate, those of person_val and every one with a crowded pair; to train, the others."""
    parts: dict[str, dict[str, Any]] = {}
    for name in names:
        content = json.loads((annotations / f"{name}.json").read_text())
        boxes: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            boxes[annotation["image_id"]].append(annotation)
        for image in content["images"]:
            found = boxes[image["id"]]
            people = [a for a in found if not a.get("iscrowd")]
            if len(people) < 2:
                continue
            crowded = metrics_of([_of_boxes([a["bbox"] for a in people])]).crowded
            part = parts.setdefault("test" if crowded or name == "person_val" else "train", {})
            part.setdefault("images", []).append(image)
            kept = ("image_id", "category_id", "bbox", "area", "iscrowd")
            rows = part.setdefault("annotations", [])
            rows += [{k: a[k] for k in kept if k in a} | {"id": len(rows) + i} for i, a in enumerate(found, start=1)]
    paths = []
    for name in ("train", "test"):
        paths.append(out / f"{name}.json")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_text(json.dumps(parts[name] | {"categories": [{"id": 1, "name": "person"}]}))
    return paths[0], paths[1]


SETS = {"synthetic": synthetic, "person": person, "pasted": pasted}
NOT_PASTED = ("person_val", "person_train_boxes")
"""Whose photos are as they are in no training picture of `pasted`."""


def tests(name: str, recipe: Recipe, arguments: argparse.Namespace) -> dict[str, tuple[str, str | None]]:
    """What a set is measured on, as annotations and images; pasted people also on real crowds."""
    assert recipe.data.val is not None
    found = {name: (recipe.data.val, recipe.data.val_images)}
    if name == "pasted":
        root = arguments.data / "coco_person"
        _, photos = crowded_split(root / "annotations", NOT_PASTED, arguments.out / "photos")
        found["photos"] = (str(photos), str(root / "images"))
    return found


def _of_boxes(boxes: list[list[float]]) -> CrowdImage:
    corners = np.array(boxes, dtype=float)
    corners[:, 2:] += corners[:, :2]
    return CrowdImage(corners, np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0))


def measured(checkpoint: Path, duplicates: str, test: tuple[str, str | None]) -> Measured:
    settings = [f"model.duplicates.kind={duplicates}", f"data.val={test[0]}", f"data.val_images={test[1] or 'null'}"]
    found = evaluate_checkpoint(checkpoint, lambda r: override(r, settings), batch_size=4)
    images = crowd_images(open_dataset(*test).coco_truth(), found.results, "person")
    return Measured(images, metrics_of(images), found.summary["bbox/AP"])


def picture(dataset: Dataset, measured: dict[str, Measured], path: Path) -> None:
    """Truth; one box a cell; two with Set NMS. Found in green, wrong in red, missed in orange, at the score of the best JI."""
    compared = [measured["one box a cell"], measured["two, Set NMS"]]
    sure = [[image.above(m.metrics.score) for image in m.images] for m in compared]
    gained = [matching(two)[0].sum() - matching(one)[0].sum() for one, two in zip(*sure, strict=True)]
    rows = []
    for index in np.argsort(-np.array(gained), kind="stable")[:SHOWN].tolist():
        pixels = dataset.image(index)
        cells = [_drawn(pixels, sure[0][index].truth, [GREEN] * len(sure[0][index].truth))]
        for one in (sure[0][index], sure[1][index]):
            matched, used = matching(one)
            colors = [GREEN if right else RED for right in used] + [ORANGE] * int((~matched).sum())
            cells.append(_drawn(pixels, np.concatenate([one.found, one.truth[~matched]]), colors))
        rows.append(np.concatenate(cells, axis=1))
    widest = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    sheet = Image.fromarray(np.concatenate(rows)).quantize(128, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


def _drawn(pixels: np.ndarray, boxes: np.ndarray, colors: list[tuple[int, int, int]]) -> np.ndarray:
    style = Style(scale=2, line=2, labels=False)
    return np.asarray(draw(pixels, boxes.astype(np.float32), [""] * len(boxes), colors, style=style).convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=["synthetic"])
    parser.add_argument("--data", type=Path, help="folder with coco_person and weights")
    parser.add_argument("--steps", type=int, help="default: the recipe's 400, and 200 on photos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for name in arguments.sets:
        recipe = SETS[name](arguments)
        measured_on, minutes = tests(name, recipe, arguments), {}
        found: dict[str, dict[str, Measured]] = {test: {} for test in measured_on}
        for row, (per_cell, duplicates) in ROWS.items():
            folder = arguments.out / f"{name}_{per_cell}_{arguments.seed}"
            if per_cell not in minutes:
                began = time.perf_counter()
                changed = [f"model.head.per_cell={per_cell}", "model.duplicates.kind=BoxNMS"]
                begun = (folder / "recipe.json").is_file()
                if train(override(recipe, changed), folder, resume=begun).interrupted:
                    return
                minutes[per_cell] = (time.perf_counter() - began) / 60
            for test, where in measured_on.items():
                one = found[test][row] = measured(folder / "last.safetensors", duplicates, where)
                line = {
                    "set": name,
                    "measured on": test,
                    "row": row,
                    "seed": arguments.seed,
                    "steps": recipe.training.steps,
                    "minutes": round(minutes[per_cell], 1),
                    "box AP": round(100 * one.box_ap, 2),
                    **{kind: round(100 * value, 2) for kind, value in one.metrics.summary.items()},
                    "score": one.metrics.score,
                    "crowded": one.metrics.crowded,
                    "commit": commit,
                    "torch": torch.__version__,
                }
                print(json.dumps(line), flush=True)
                with (arguments.out / "results.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
        if arguments.picture is not None:
            picture(open_dataset(*measured_on[name]), found[name], arguments.picture)


if __name__ == "__main__":
    main()
