"""Photos a second: one by one in a loop, as a folder (read ahead), and several at once.

The ways take turns, photo folder after photo folder, so that a busy neighbour slows all of them.

    python benchmarks/streams.py [--recipe condinst_mobilenetv2] [--photos 24] [--size 1200 1600] [--threads 2] [--device cuda]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from perpixel.engine.allocator import keep_freed_memory
from perpixel.engine.benchmark import random_picture, spread_logits
from perpixel.engine.predict import Predictor
from perpixel.nn.backbones import without_pretrained
from perpixel.recipes import get_recipe


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """JPEG files of coarse noise."""
    paths = [folder / f"{number:03d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(np.roll(random_picture(size), 17 * number, axis=1)).save(path, quality=92)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="condinst_mobilenetv2")
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--size", nargs=2, type=int, default=[1200, 1600], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default=None)
    asked = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    recipe = get_recipe(asked.recipe)
    model = without_pretrained(recipe.model).build(80)
    spread_logits(model.box_head.class_logits, model.box_head.distances)
    names = [str(number) for number in range(80)]
    predictor = Predictor(model, names, recipe.data.test, asked.device).optimize("exact")
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder), asked.photos, tuple(asked.size))
        ways: dict[str, Callable[[], object]] = {
            "one by one": lambda: [predictor.predict(photo, 0.3) for photo in photos],
            "as a folder": lambda: predictor.predict(folder, 0.3),
            "as a folder, 4 at once": lambda: predictor.predict(folder, 0.3, batch_size=4),
        }
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(asked.rounds + 1):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                if number:
                    spent[name].append(time.perf_counter() - began)
    first = spent["one by one"]
    print(
        f"{asked.recipe}, {asked.photos} photos of {asked.size[0]}x{asked.size[1]}, {predictor.device}, "
        f"{asked.threads} threads, torch {torch.__version__}\n"
    )
    print("| | photos a second | faster |")
    print("| --- | ---: | ---: |")
    for name, times in spent.items():
        ratio = median(one / mine for one, mine in zip(first, times, strict=True))
        print(f"| {name} | {asked.photos / median(times):.2f} | {ratio:.2f}x |")


if __name__ == "__main__":
    main()
