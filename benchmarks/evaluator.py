"""Box evaluation against pycocotools on a large made-up set: agreement and speed.

python benchmarks/evaluator.py [IMAGES]
"""

import contextlib
import io
import sys
import time
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from perpixel.engine.metrics import coco_metrics


def made_up(
    images: int, classes: int = 80, objects: int = 7, results: int = 40
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth with about `objects` an image and results, some near the truth, some anywhere."""
    random = np.random.default_rng(0)
    truth: dict[str, Any] = {
        "info": {},
        "images": [{"id": i, "width": 640, "height": 480} for i in range(images)],
        "categories": [{"id": c, "name": str(c)} for c in range(1, classes + 1)],
        "annotations": [],
    }
    found: list[dict[str, Any]] = []
    for image in range(images):
        boxes = np.concatenate([random.uniform(0, 400, (objects, 2)), random.uniform(8, 200, (objects, 2))], 1)
        labels = random.integers(1, classes + 1, objects)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            identity = len(truth["annotations"]) + 1
            row = {"id": identity, "image_id": image, "category_id": label, "bbox": box}
            truth["annotations"].append(row | {"area": box[2] * box[3], "iscrowd": 0})
        chosen = random.integers(0, objects, results)
        near = (boxes[chosen] + random.normal(0, 8, (results, 4))).clip(1)
        guessed = np.where(random.random(results) < 0.6, labels[chosen], random.integers(1, classes + 1, results))
        scores = random.random(results)
        for box, label, score in zip(near.tolist(), guessed.tolist(), scores.tolist(), strict=True):
            found.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    return truth, found


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    truth, found = made_up(images)
    started = time.perf_counter()
    ours = coco_metrics(truth, found)
    middle = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ended = time.perf_counter()
    difference = np.abs(np.array(list(ours.summary.values())) - evaluation.stats).max()
    print(f"{images} images, {len(truth['annotations'])} objects, {len(found)} results, 80 classes")
    ours_seconds, reference_seconds = middle - started, ended - middle
    ratio = reference_seconds / ours_seconds
    print(f"perpixel {ours_seconds:.2f} s, pycocotools {reference_seconds:.2f} s: {ratio:.1f}x faster")
    print(f"largest difference of the 12 numbers: {difference:.1e}")


if __name__ == "__main__":
    main()
