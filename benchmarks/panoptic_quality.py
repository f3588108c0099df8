"""Panoptic quality of made-up segmentations: ours against the obvious loop over pairs of segments, and against hotcoco on files.

python benchmarks/panoptic_quality.py [IMAGES]
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import hotcoco.panoptic
import numpy as np
import torch
from PIL import Image

from perpixel.data.panoptic_format import categories_of, to_coco
from perpixel.engine.panoptic_metrics import count_segments, panoptic_metrics
from perpixel.structures import Segments, Stuff

THINGS, STUFF, SIZE = 80, 53, (480, 640)


def made_up(random: np.random.Generator, count: int = 25) -> tuple[Segments, Segments]:
    """A truth of `count` rectangles upon each other before two halves of stuff, and the same moved, with some classes changed."""
    owner = np.zeros(SIZE, dtype=np.int32)
    owner[SIZE[0] // 2 :] = 1
    labels = np.concatenate([THINGS + random.permutation(STUFF)[:2], random.integers(0, THINGS, count)])
    for row in range(2, count + 2):
        (y, x), (height, width) = random.integers(0, SIZE), random.integers(20, 160, 2)
        owner[y : y + height, x : x + width] = row
    moved = np.roll(owner, random.integers(-12, 13, 2), axis=(0, 1))
    changed = np.where(random.random(len(labels)) < 0.1, random.integers(0, THINGS + STUFF, len(labels)), labels)
    return tuple(
        Segments(torch.from_numpy(map_), torch.from_numpy(names), torch.ones(len(names)), torch.zeros(len(names)) > 0)
        for map_, names in ((owner, labels), (moved, changed))
    )  # pyright: ignore


def loop(pairs: list[tuple[Segments, Segments]]) -> float:
    """PQ by a loop over pairs of segments of the same class; there are neither void pixels nor groups here."""
    found, overlap, truths, predictions = (np.zeros(THINGS + STUFF) for _ in range(4))
    for truth, predicted in pairs:
        masks = [mask for mask in (truth.map.numpy() == row for row in range(len(truth)))]
        others = [mask for mask in (predicted.map.numpy() == row for row in range(len(predicted)))]
        for totals, one, parts in ((truths, truth, masks), (predictions, predicted, others)):
            for label, mask in zip(one.labels.tolist(), parts, strict=True):
                totals[label] += mask.any()
        for label, mask in zip(truth.labels.tolist(), masks, strict=True):
            for other_label, other in zip(predicted.labels.tolist(), others, strict=True):
                if label == other_label and (both := (mask & other).sum()):
                    iou = both / (mask | other).sum()
                    if iou > 0.5:
                        found[label] += 1
                        overlap[label] += iou
    occurs = truths + predictions > 0
    return float((overlap[occurs] / ((truths + predictions)[occurs] / 2)).mean())


def write(folder: Path, name: str, all_segments: list[Segments]) -> Path:
    """A panoptic json with its pictures."""
    stuff = Stuff(tuple(f"stuff {i}" for i in range(STUFF)), tuple(range(THINGS + 1, THINGS + STUFF + 1)))
    (folder / name).mkdir()
    annotations = []
    for number, one in enumerate(all_segments):
        colors, infos = to_coco(one, range(1, THINGS + STUFF + 1))
        Image.fromarray(colors).save(folder / name / f"{number}.png", compress_level=1)
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
    images = [{"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(len(annotations))]
    things = [f"thing {i}" for i in range(THINGS)]
    document = {"images": images, "annotations": annotations}
    document["categories"] = categories_of(things, range(1, THINGS + 1), stuff)
    (folder / f"{name}.json").write_text(json.dumps(document))
    return folder / f"{name}.json"


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    pairs = [made_up(random) for _ in range(images)]
    names = [str(i) for i in range(THINGS + STUFF)]
    count_segments(*pairs[0], THINGS + STUFF)  # the first call of any code takes longer
    started = time.perf_counter()
    counts = [count_segments(truth, predicted, THINGS + STUFF) for truth, predicted in pairs]
    ours = panoptic_metrics(counts, names[:THINGS], names[THINGS:]).summary["PQ"]
    middle = time.perf_counter()
    slow = loop(pairs)
    ended = time.perf_counter()
    mine, others = (middle - started) / images, (ended - middle) / images
    print(f"{images} images of {SIZE[1]}x{SIZE[0]} with 27 segments, one thread")
    print(f"ours {1000 * mine:.2f} ms an image, PQ {ours:.9f}")
    print(
        f"loop {1000 * others:.2f} ms an image, PQ {slow:.9f}: {others / mine:.1f} times as long, {abs(ours - slow):.1e} apart"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = [write(Path(folder), name, [p[i] for p in pairs]) for i, name in enumerate(("truth", "found"))]
        started = time.perf_counter()
        theirs = hotcoco.panoptic.pq_compute(*map(str, paths))["All"]["pq"]
        seconds = (time.perf_counter() - started) / images
    print(f"hotcoco {1000 * seconds:.2f} ms an image with reading its pictures, {abs(ours - theirs):.1e} apart")


if __name__ == "__main__":
    main()
