"""Random batches in reduced precision: losses and gradients of every method stay finite numbers.

    python tests/reliability/bf16.py --batches 1000 --precision bfloat16

takes each method on a tiny network and on batches with and without objects, with bright, dark, flat and wild images. Losses are
float32 whatever the network computes in (docs/reliability.md lists these islands).
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from perpixel.recipes import all_recipes, get_recipe
from perpixel.structures import Batch, Targets
from test_recipes import shrunk
from tiny_batches import batch_of

METHODS = [name for name in sorted(all_recipes()) if name.endswith("_mobilenetv2") and name != "arch2_mobilenetv2"]
"""One recipe of each method of objects."""


def random_batch(number: int) -> Batch:
    """Objects in both images, in one, in none; images of noise, of one colour, of two extremes."""
    generator = torch.Generator().manual_seed(number)
    batch = batch_of(((4, 3), (0, 3), (0, 0), (1, 9))[number % 4])
    images = torch.randint(256, (2, 3, 96, 96), generator=generator, dtype=torch.uint8)
    match number // 4 % 4:
        case 1:
            images = torch.full_like(images, number % 256)
        case 2:
            images = torch.where(images > 127, 255, 0).to(torch.uint8)
        case 3:
            images = images // 64
    return replace(batch, images=images, progress=number)


def moved(batch: Batch, device: str) -> Batch:
    """The batch on a device; in half of the boxes' targets one is a sliver of half a pixel."""
    targets: list[Targets] = []
    for target in batch.truth():
        boxes = target.boxes.clone()
        if len(boxes) > 2:
            boxes[0, 2:] = boxes[0, :2] + 0.5
        targets.append(replace(target, boxes=boxes))
    return replace(batch, targets=tuple(targets)).to(device)


def batches_without_nan(name: str, count: int, precision: torch.dtype = torch.bfloat16, device: str = "cpu") -> int:
    """How many batches of a method gave finite losses in float32 and finite gradients, before the first that did not.

    float16 gets its losses scaled by 2^7, as mixed precision does; the network stays at its random start.
    """
    torch.manual_seed(0)
    model = shrunk(get_recipe(name).model).build(classes=3, stuff=2).train().to(device)
    scale = 128.0 if precision == torch.float16 else 1.0
    for number in range(count):
        batch = moved(random_batch(number), device)
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=precision):
            losses = model.loss(batch)
        total = torch.stack(list(losses.values())).sum()
        (scale * total).backward()
        grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        good = all(loss.dtype == torch.float32 and bool(loss.isfinite()) for loss in losses.values())
        if not good or not all(bool(grad.isfinite().all()) for grad in grads):
            print(f"{name}, batch {number}: { ({key: float(value) for key, value in losses.items()}) }")
            return number
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=1000, help="of each method")
    parser.add_argument("--precision", choices=("bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", choices=METHODS)
    arguments = parser.parse_args()
    bad = 0
    for name in arguments.only or METHODS:
        began = time.monotonic()
        precision = getattr(torch, arguments.precision)
        good = batches_without_nan(name, arguments.batches, precision, arguments.device)
        bad += good < arguments.batches
        print(f"{name:34} {good} of {arguments.batches} finite, {time.monotonic() - began:.0f} s", flush=True)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
