"""What a mask costs: SmalMask at candidates and dense, as the thesis has it, SmalMask2, PointINS, Mask R-CNN's head, CondInst.

    uv run python benchmarks/smalmask_cost.py [--size 800 1333] [--repetitions 5] [--threads 1] [--device cuda]

The box tower's maps are made up; all methods work on the same candidates in one run, boxes of eight strides around their points.
SmalMask is the shared one: the separate one's tower costs as much as the box tower, and is no part of this. FLOPs are those of
products and convolutions, a multiplication and an addition as two.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from masks import STRIDES
from pointins_cost import CLASSES, Method, boxes_at, compare
from pointins_cost import methods as others
from torch import Tensor
from torchvision.ops import deform_conv2d

from perpixel.models.smalmask import SmalMask, SmalMaskHead
from perpixel.models.smalmask2 import SmalMask2
from perpixel.ops.box_sampling import bin_centers, kernel_places
from perpixel.ops.locations import grid_points
from perpixel.structures import Candidates


def methods(towers: tuple[Tensor, ...], size: tuple[int, int], device: str) -> list[Method]:
    shared = SmalMask(convs=0)
    aligned, plain, two_stage = (
        config.build(256, 256, STRIDES, CLASSES).eval().to(device)
        for config in (shared, replace(shared, predictor="conv"), SmalMask2())
    )
    assert isinstance(aligned, SmalMaskHead)
    shapes = tuple((x.shape[2], x.shape[3]) for x in towers)
    points, steps, levels = grid_points(shapes, STRIDES, device=device)
    half = 4 * steps[:, None]
    places = bin_centers(torch.cat([points - half, points + half], dim=1), 5)
    offsets = ((places - kernel_places(points, steps, 5)) / steps[:, None, None, None]).flip(-1).flatten(1)

    def dense_masks() -> list[Tensor]:
        maps = []
        for level, values in enumerate(towers):
            offset = offsets[levels == level].T.unflatten(1, shapes[level])[None]
            maps.append(deform_conv2d(values, offset, aligned.to_mask.weight, aligned.to_mask.bias, padding=2))
        return maps

    def gathered(maps: list[Tensor], found: Candidates) -> Tensor:
        rows = [maps[level].flatten(2)[0, :, cell] for level, cell in zip(found.level, found.cell, strict=True)]
        return torch.stack(rows).sigmoid()

    def dense_plain() -> list[Tensor]:
        return [F.conv2d(values, aligned.to_mask.weight, aligned.to_mask.bias, padding=2) for values in towers]

    def with_boxes(head: torch.nn.Module, name: str) -> Method:
        def masks(_: object, found: Candidates) -> Tensor:
            return head.predict(towers, replace(found, boxes=boxes_at(found))).values

        return Method(name, head, lambda: None, masks)

    return [
        with_boxes(aligned, "SmalMask, RoIPred 5x5"),
        with_boxes(plain, "SmalMask, Conv 5x5"),
        with_boxes(two_stage, "SmalMask2"),
        Method("SmalMask, RoIPred made everywhere", aligned, dense_masks, gathered),
        Method("SmalMask, Conv made everywhere", plain, dense_plain, gathered),
        *(method for method in others(towers, size, device) if "everywhere" not in method.name),
    ]


if __name__ == "__main__":
    compare(__doc__, methods)
