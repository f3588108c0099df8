"""Training steps of R-50 models against torchvision's FCOS and Mask R-CNN in one run: images a second and memory.

Each model takes a step in turn, round after round, on the same photos of noise with the same boxes and masks, so that a busy
neighbour slows all of them; ratios are medians of those within each round. Peaks come from a process for each model.

    python benchmarks/training.py [--size 480 640] [--batch 2] [--rounds 5] [--threads 2] [--device cuda]
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torchvision.models.detection import fcos_resnet50_fpn, maskrcnn_resnet50_fpn

from perpixel.engine.allocator import keep_freed_memory
from perpixel.nn.backbones import without_pretrained
from perpixel.recipes import get_recipe
from perpixel.structures import Batch, Targets

OBJECTS = 8
OURS = {"FCOS": "fcos_r50_1x", "CondInst": "condinst_r50_1x", "BoxInst": "boxinst_r50_1x"}
THEIRS = {"torchvision FCOS": fcos_resnet50_fpn, "torchvision Mask R-CNN": maskrcnn_resnet50_fpn}
Step = Callable[[], None]


def truth(size: tuple[int, int]) -> Targets:
    """Round objects of an eighth of the side to a half of it."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    middle = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([width, height])
    radius = (torch.rand(OBJECTS, generator=generator) * 3 + 1) / 16 * min(size)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    masks = torch.hypot(x - middle[:, 0, None, None], y - middle[:, 1, None, None]) < radius[:, None, None]
    limits = torch.tensor([width, height])
    boxes = torch.cat([(middle - radius[:, None]).clamp(min=0), torch.minimum(middle + radius[:, None], limits)], dim=1)
    return Targets(boxes, torch.arange(OBJECTS) % 80, masks, middle)


def optimized(model: nn.Module, losses: Callable[[], dict[str, torch.Tensor]]) -> Step:
    """One step of SGD."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        sum(losses().values()).backward()
        optimizer.step()

    return step


def step_of(name: str, size: tuple[int, int], batch: int, device: str) -> Step:
    """What is timed for a row of the table; `, bf16` after a name of ours is the recipes' training.precision=bfloat16."""
    torch.manual_seed(0)
    photos, target = torch.randint(256, (batch, 3, *size), dtype=torch.uint8, device=device), truth(size)
    model_name, _, precision = name.partition(", ")
    if model_name in OURS:
        model = without_pretrained(get_recipe(OURS[model_name]).model).build(80).to(device).train()
        model = model.to(memory_format=torch.channels_last)
        inputs = Batch(photos, (size,) * batch, (size,) * batch, (target,) * batch).to(device)

        def losses() -> dict[str, torch.Tensor]:
            with torch.autocast(device.partition(":")[0], torch.bfloat16, precision == "bf16"):
                return model.loss(inputs)

        return optimized(model, losses)
    make = THEIRS[model_name]
    theirs = make(weights=None, weights_backbone=None, num_classes=81, min_size=min(size), max_size=max(size))
    theirs = theirs.to(device).train()
    # Trained as theirs are by default: the first stages frozen.
    for part, layer in theirs.backbone.body.items():
        if part in ("conv1", "bn1", "layer1"):
            layer.requires_grad_(False)
    objects = {"boxes": target.boxes, "labels": target.labels + 1, "masks": target.masks.to(torch.uint8)}
    objects = {key: value.to(device) for key, value in objects.items()}
    return optimized(theirs, lambda: theirs(list(photos.float() / 255), [objects] * batch))


def peak(name: str, size: tuple[int, int], batch: int, device: str) -> float:
    """GiB that two steps take: of the device's allocator, or of the process above what it held before."""
    if "cuda" in device:
        step = step_of(name, size, batch, device)
        for _ in range(2):
            step()
        return torch.cuda.max_memory_allocated() / 2**30
    before = resident("VmRSS")
    step = step_of(name, size, batch, device)
    for _ in range(2):
        step()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """GiB of a field of the process's status."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    size, batch, device = tuple(asked.size), asked.batch, asked.device
    names = [*THEIRS, *OURS, *(f"{name}, bf16" for name in OURS)]
    context, peaks = multiprocessing.get_context("spawn"), {}
    for name in names:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            peaks[name] = pool.submit(peak, name, size, batch, device).result()
    keep_freed_memory()
    torch.set_num_threads(asked.threads)
    steps = {name: step_of(name, size, batch, device) for name in names}
    spent: dict[str, list[float]] = {name: [] for name in names}
    for number in range(asked.rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if "cuda" in device:
                torch.cuda.synchronize()
            if number:
                spent[name].append(time.perf_counter() - began)
    print(f"{size[0]}x{size[1]}, batch {batch}, {device}, {asked.threads} threads, torch {torch.__version__}\n")
    print("| | images a second | faster than torchvision's FCOS | than its Mask R-CNN | peak, GiB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, times in spent.items():
        ratios = [median(theirs / mine for theirs, mine in zip(spent[peer], times, strict=True)) for peer in THEIRS]
        print(
            f"| {name} | {batch / median(times):.2f} | "
            + " | ".join(f"{ratio:.2f}x" for ratio in ratios)
            + f" | {peaks[name]:.2f} |"
        )


if __name__ == "__main__":
    main()
