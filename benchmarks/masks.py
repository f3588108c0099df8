"""CondInst's mask head: time and memory by the number of instances, and what a dense controller would cost.

uv run python benchmarks/masks.py [--device cuda] [--size 800 1333] [--repetitions 5]
"""

import argparse
import resource
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F

from perpixel.models.condinst import CondInst, CondInstHead, Maps
from perpixel.ops.locations import grid_points
from perpixel.ops.mask_windows import each_mask
from perpixel.ops.sampling import conv_at, patches_at
from perpixel.structures import Candidates, ImageMasks

STRIDES = (8, 16, 32, 64, 128)


def maps_of(size: tuple[int, int], device: str) -> tuple[Maps, tuple[tuple[int, int], ...]]:
    shapes = tuple((-(-size[0] // s), -(-size[1] // s)) for s in STRIDES)
    towers = tuple(torch.randn(1, 256, *shape, device=device) for shape in shapes)
    return Maps(torch.randn(1, 8, *shapes[0], device=device), towers, towers[0]), shapes


def some_candidates(shapes: tuple[tuple[int, int], ...], count: int, device: str) -> Candidates:
    points, strides, levels = grid_points(shapes, STRIDES, device=device)
    first = torch.tensor([0, *(h * w for h, w in shapes)]).cumsum(0).to(device)
    location = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:count].to(device)
    level, image = levels[location], torch.zeros(count, dtype=torch.long, device=device)
    boxes = torch.zeros(count, 4, device=device)
    cell = location - first[level]
    return Candidates(
        image, location, level, cell, points[location], strides[location], boxes, boxes, None, image, boxes[:, 0]
    )


def milliseconds(work: Callable[[], object], device: str, repetitions: int) -> float:
    times = []
    for number in range(repetitions + 1):
        if device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        if number:
            times.append(1000 * (time.perf_counter() - started))
    return median(times)


def peak(device: str) -> float:
    """MiB: of the device's allocator, or the process's largest so far."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def blobs(count: int, height: int, width: int, device: str) -> torch.Tensor:
    """Probabilities of round objects of many sizes."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place, size = torch.rand(2, count, 1, 1, generator=generator), torch.rand(count, 1, 1, generator=generator)
    distance = torch.hypot(y - place[0] * height, x - place[1] * width)
    return torch.sigmoid(8 * (1 - distance / (3 * 27**size))).to(device)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    size, device, repetitions = tuple(asked.size), asked.device, asked.repetitions
    head = CondInst().build(256, 256, STRIDES, 80).eval().to(device)
    assert isinstance(head, CondInstHead)
    dense, shapes = maps_of(size, device)
    weight, bias = head.controller.weight, head.controller.bias
    print(
        f"{size[0]}x{size[1]}, {device}, torch {torch.__version__}, {asked.threads} thread(s), medians of {repetitions}"
    )
    everywhere = milliseconds(
        lambda: [F.conv2d(tower, weight, bias, padding=1) for tower in dense.towers], device, repetitions
    )
    print(f"controller everywhere: {everywhere:.1f} ms\n")
    print("| instances | controller at candidates, ms | with the masks at stride 4, ms | peak memory, MiB |")
    print("| ---: | ---: | ---: | ---: |")
    for count in (1, 10, 100, 500):
        found = some_candidates(shapes, count, device)
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        at = milliseconds(lambda n=found: conv_at(patches_at(dense.towers, n), weight, bias), device, repetitions)
        whole = milliseconds(lambda n=found: head.logits(dense, n), device, repetitions)
        print(f"| {count} | {at:.1f} | {whole:.1f} | {peak(device):.0f} |")
    boxes = torch.zeros(100, 4, device=device)
    values = blobs(100, -(-size[0] // 4), -(-size[1] // 4), device)
    spent = milliseconds(lambda: list(each_mask(ImageMasks(values, 4), boxes, size, size)), device, repetitions)
    print(f"\n100 masks of the photo from stride 4: {spent:.0f} ms")


if __name__ == "__main__":
    main()
