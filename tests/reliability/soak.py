"""Thousands of predictions of changing sizes, and of training steps: resident memory stays flat.

python tests/reliability/soak.py --predictions 2000 --steps 2000
"""

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from perpixel.data.loader import train_batches
from perpixel.data.settings import Augment, DataConfig
from perpixel.data.settings import TestSize as Size
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.allocator import keep_freed_memory
from perpixel.engine.loop import TrainingData, fit
from perpixel.engine.predict import Predictor
from perpixel.recipes import get_recipe
from test_recipes import shrunk
from tiny_training import tiny_recipe


def memory() -> float:
    """Resident megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def told(what: str, used: list[float]) -> bool:
    """Says how memory went; whether the last fifth uses more than 5 % and 16 MiB above the second fifth."""
    fifth = len(used) // 5
    early, late = max(used[fifth : 2 * fifth]), max(used[-fifth:])
    print(f"{what}: {early:.0f} MiB at most in the second fifth, {late:.0f} in the last", flush=True)
    return late > max(1.05 * early, early + 16)


def predictions(count: int) -> list[float]:
    """Photos of sizes that never repeat, through a tiny CondInst that finds as much as it may."""
    torch.manual_seed(0)
    model = shrunk(get_recipe("condinst_mobilenetv2").model)
    model = replace(model, selection=replace(model.selection, threshold=0.0, keep=20))
    predictor = Predictor(model.build(3), ["a", "b", "c"], Size(64, 128), "cpu")
    random, used = Random(0), []
    for n in range(count):
        size = random.randint(20, 300), random.randint(20, 300)
        found = predictor.predict(np.full((*size, 3), n % 256, np.uint8), 0.0)
        assert found.size == size  # pyright: ignore[reportAttributeAccessIssue]
        used.append(memory())
    return used


def steps(count: int) -> list[float]:
    """Steps of a tiny model on shapes of changing sizes, with saves and a log."""
    dataset, used = ShapesDataset(64, seed=0), []
    config = DataConfig(workers=0, augment=Augment(short_sides=tuple(range(24, 97, 8)), max_side=128, crop=0.7))

    def batches(start, world):
        for batch in train_batches(dataset, config, batch_size=2, seed=0, start_step=start):
            used.append(memory())
            yield batch

    recipe = tiny_recipe(steps=count, batch_size=2, save_every=100, log_every=10, evaluate_every=None)
    with tempfile.TemporaryDirectory() as folder:
        fit(recipe, Path(folder) / "run", TrainingData(dataset.classes, dataset.category_ids, batches), device="cpu")
    return used


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    grown = told(f"{arguments.predictions} predictions", predictions(arguments.predictions))
    return bool(told(f"{arguments.steps} steps", steps(arguments.steps)) + grown)


if __name__ == "__main__":
    sys.exit(main())
