"""How much a larger neighbour in a batch changes what is found: each photo alone, then beside a wider grey one.

    python tests/reliability/padding.py runs/fcos_shapes/best.safetensors --data shapes:12:99

compares each object of a score of 0.5 or more with the nearest of its class among those found beside the grey photo.
"""

import argparse

import numpy as np
import torch

from perpixel import load
from perpixel.data.open import open_dataset
from perpixel.engine.sources import Frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data", default="shapes:12:99")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor, dataset = load(arguments.checkpoint), open_dataset(arguments.data)
    scores, pixels, lost = [], [], 0
    for index in range(len(dataset)):
        photo = dataset.image(index)
        wider = np.full((len(photo), len(photo) * 3 // 2, 3), 127, np.uint8)
        alone = predictor.predict_frames([Frame(photo)], 0.5)[0]
        beside = predictor.predict_frames([Frame(photo), Frame(wider)], 0.05)[0]
        for box, label, score in zip(alone.boxes, alone.labels, alone.scores, strict=True):
            rows = np.flatnonzero(beside.labels == label)
            if not len(rows):
                lost += 1
                continue
            off = np.abs(beside.boxes[rows] - box).max(axis=1)
            pixels.append(off.min())
            scores.append(abs(beside.scores[rows[off.argmin()]] - score))
    print(f"{len(scores)} objects found both times, {lost} alone only")
    print(f"scores differ by {np.median(scores):.3f} (median), {max(scores):.3f} at most")
    print(f"boxes differ by {np.median(pixels):.2f} pixels (median), {max(pixels):.2f} at most")


if __name__ == "__main__":
    main()
