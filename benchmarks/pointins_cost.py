"""What a mask costs: PointINS at candidates, with its dense 2304-channel map, Mask R-CNN's head on RoIAlign, CondInst.

    uv run python benchmarks/pointins_cost.py [--size 800 1333] [--repetitions 5] [--threads 1] [--device cuda]

The box tower's maps are made up; all methods work on the same candidates in one run. FLOPs count a multiplication and an
addition as two.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from masks import STRIDES, maps_of, milliseconds, some_candidates
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from perpixel.models.condinst import CondInst
from perpixel.models.pointins import PointINS
from perpixel.structures import Candidates

COUNTS = (1, 10, 100)
CLASSES = 80


@dataclass(frozen=True)
class Method:
    """Masks of candidates in two parts: `image` runs once an image, `candidates` on its result."""

    name: str
    modules: nn.Module
    image: Callable[[], object]
    candidates: Callable[[object, Candidates], Tensor]


def boxes_at(found: Candidates) -> Tensor:
    """Boxes of eight strides around each candidate's point."""
    half = 4 * found.strides[:, None]
    return torch.cat([found.points - half, found.points + half], dim=1)


def methods(towers: tuple[Tensor, ...], size: tuple[int, int], device: str) -> list[Method]:
    pointins = PointINS().build(256, 256, STRIDES, CLASSES).eval().to(device)
    weight, bias = pointins.up_scaling.weight, pointins.up_scaling.bias

    def dense_templates() -> list[Tensor]:
        return [F.conv2d(tower, weight, bias, padding=1) for tower in towers]

    def dense_masks(maps: list[Tensor], found: Candidates) -> Tensor:
        rows = [maps[level].flatten(2)[0, :, cell] for level, cell in zip(found.level, found.cell, strict=True)]
        templates = torch.stack(rows).unflatten(1, (16, 16, 9)).permute(0, 3, 1, 2)
        indicator = pointins.config.indicator.of(found, found.points)
        features = pointins.instance_features(templates, pointins.instance_weights(indicator))
        return pointins.mask(features).sigmoid()

    regions = nn.ModuleDict({
        "align": MultiScaleRoIAlign(["0", "1", "2", "3", "4"], output_size=14, sampling_ratio=2),
        "convs": MaskRCNNHeads(256, (256,) * 4, dilation=1),
        "predictor": MaskRCNNPredictor(256, 256, CLASSES),
    }).to(device)  # fmt: skip

    def region_masks(_: object, found: Candidates) -> Tensor:
        maps = {str(level): tower for level, tower in enumerate(towers)}
        values = regions["predictor"](regions["convs"](regions["align"](maps, [boxes_at(found)], [size])))
        return values[torch.arange(len(found), device=values.device), found.labels].sigmoid()

    condinst = CondInst().build(256, 256, STRIDES, CLASSES).eval().to(device)
    assert condinst.mask_branch is not None
    maps, _ = maps_of(size, device)

    def condinst_masks(features: object, found: Candidates) -> Tensor:
        return condinst.predict(maps._replace(towers=towers, features=features), found).values

    return [
        Method("PointINS", pointins, lambda: None, lambda _, found: pointins.predict(towers, found).values),
        Method("PointINS, template map made everywhere", pointins, dense_templates, dense_masks),
        Method("Mask R-CNN's head (torchvision, RoIAlign)", regions, lambda: None, region_masks),
        Method("CondInst", condinst, lambda: condinst.mask_branch(towers), condinst_masks),
    ]


def gflops(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


@torch.inference_mode()
def compare(about: str, methods: Callable[[tuple[Tensor, ...], tuple[int, int], str], list[Method]]) -> None:
    """Reads the command line and prints a row for each of the methods, which are made for a box tower's maps."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    size, device = (asked.size[0], asked.size[1]), asked.device
    dense, shapes = maps_of(size, device)
    print(
        f"{size[0]}x{size[1]}, {device}, torch {torch.__version__}, {asked.threads} thread(s), medians of {asked.repetitions}\n"
    )
    counts = " | ".join(f"{count}, ms" for count in COUNTS)
    print(f"| | parameters, million | GFLOP an image | GFLOP a candidate | an image, ms | {counts} |")
    print("| --- |" + " ---: |" * (4 + len(COUNTS)))
    for method in methods(dense.towers, size, device):
        whole = method.image()
        one = some_candidates(shapes, 1, device)
        row = [
            f"{sum(p.numel() for p in method.modules.parameters()) / 1e6:.1f}",
            f"{gflops(method.image):.1f}",
            f"{gflops(lambda m=method, w=whole, c=one: m.candidates(w, c)):.2f}",
            f"{milliseconds(method.image, device, asked.repetitions):.0f}",
        ]
        for count in COUNTS:
            found = some_candidates(shapes, count, device)
            spent = milliseconds(lambda m=method, w=whole, c=found: m.candidates(w, c), device, asked.repetitions)
            row.append(f"{spent:.1f}")
        print(f"| {method.name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    compare(__doc__, methods)
