"""How far keypoints are from the truth on photos not trained on: less noisy than AP, and of use before there is any AP.

    uv run python benchmarks/keypoint_error.py runs/*/last.safetensors [data.val=other.json]

Measured at the locations that would train (so detection plays no part), over known keypoints: the distance |dx| + |dy| in
strides of the location's level, and the mean similarity of COCO's evaluation with the area of the rectangle around the
keypoints.
"""

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from perpixel.cli.settings import with_settings
from perpixel.data.loader import train_batches
from perpixel.data.open import open_dataset
from perpixel.data.settings import Augment
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.models.detector import Detector
from perpixel.models.directpose import DirectPoseHead

BATCH = 8


@torch.no_grad()
def keypoint_error(path: Path, settings: list[str]) -> tuple[float, float]:
    """Strides and similarity, means over the batches of one pass through data.val."""
    checkpoint = load_checkpoint(path)
    data = with_settings(checkpoint.recipe, settings).data
    assert data.val is not None
    dataset = open_dataset(data.val, data.val_images, classes=checkpoint.class_names)
    still = Augment(short_sides=(data.test.short_side,), max_side=data.test.max_side, flip=0.0)
    model = build_model(checkpoint)
    assert isinstance(model, Detector) and isinstance(model.instance_head, DirectPoseHead)
    head = model.instance_head
    losses = {name: replace(head.config, loss=name, weight=1.0) for name in ("l1", "oks")}
    batches = train_batches(dataset, replace(data, augment=still, workers=0), batch_size=BATCH, seed=0)
    torch.manual_seed(0)
    totals = dict.fromkeys(losses, 0.0)
    count = len(dataset) // BATCH
    for batch in islice(batches, count):
        outputs, dense = model(model.normalized(batch))
        for name, config in losses.items():
            head.config = config
            totals[name] += float(model.losses(outputs, dense, batch)["keypoints"])
    return totals["l1"] / count, 1 - totals["oks"] / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT or KEY=VALUE")
    asked = parser.parse_args().checkpoints
    settings = [word for word in asked if "=" in word]
    print("| | distance, strides | similarity |\n| --- | ---: | ---: |")
    for path in (Path(word) for word in asked if word not in settings):
        distance, similarity = keypoint_error(path, settings)
        print(f"| {path.parent.name} | {distance:.3f} | {similarity:.3f} |", flush=True)


if __name__ == "__main__":
    main()
