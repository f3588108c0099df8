"""Where predictions stand: the grid of points of a pyramid, and the anchor boxes around them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def grid_points(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    offset: float = 0.5,
    spread: bool = False,
    device: torch.device | str | None = None,
) -> tuple[Float[Tensor, "l 2"], Float[Tensor, " l"], Int[Tensor, " l"]]:
    """Point, stride and level of every cell of a pyramid: level-major, then y, x.

    Args:
        shapes: (height, width) of each level.
        strides: pixels a cell of each level.
        offset: where in its cell a point stands, in cells: 0.5 is the middle (thesis 002, 3.2.1: floor(s / 2) + x s),
            0 the top left corner (torchvision).
        spread: space the cells of a level by image // cells instead of by the stride, as torchvision does; they differ where a
            level's map was rounded up. The image is taken as the first level's map times its stride.
        device: where the tensors live.
    """
    image = [cells * strides[0] for cells in shapes[0]]
    points, steps, levels = [], [], []
    for level, ((height, width), stride) in enumerate(zip(shapes, strides, strict=True)):
        step_y, step_x = (image[0] // height, image[1] // width) if spread else (stride, stride)
        y = (torch.arange(height, device=device, dtype=torch.float32) + offset) * step_y
        x = (torch.arange(width, device=device, dtype=torch.float32) + offset) * step_x
        points.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2))
        steps.append(torch.full((height * width,), float(stride), device=device))
        levels.append(torch.full((height * width,), level, device=device))
    return torch.cat(points), torch.cat(steps), torch.cat(levels)


def anchor_shapes(
    sizes: Sequence[float], ratios: Sequence[float], ratio_first: bool = False, rounded: bool = False
) -> Float[Tensor, "a 4"]:
    """Anchor boxes around the origin, one for each size and height / width ratio.

    Args:
        sizes: square roots of the areas, in pixels.
        ratios: heights over widths.
        ratio_first: the order of the anchors of a cell: False runs through the ratios of one size first (detectron2), True
            through the sizes of one ratio (torchvision, mmdetection).
        rounded: corners rounded to whole pixels, as torchvision has them.
    """
    pairs = [(s, r) for r in ratios for s in sizes] if ratio_first else [(s, r) for s in sizes for r in ratios]
    half = torch.tensor([[size / ratio**0.5 / 2, size * ratio**0.5 / 2] for size, ratio in pairs])
    anchors = torch.cat([-half, half], dim=1)
    return anchors.round() if rounded else anchors


def join_levels(maps: Sequence[Float[Tensor, "b _ _ _"]], per_cell: int = 1) -> Float[Tensor, "b l d"]:
    """Maps of all levels as one table: level-major, then y, x, then the `per_cell` parts of the channels.

    At least float32, whatever precision the maps were computed in: losses and boxes are taken from it.
    """
    kind = torch.promote_types(maps[0].dtype, torch.float32)
    rows = [x.to(kind).permute(0, 2, 3, 1).reshape(x.shape[0], x.shape[2] * x.shape[3] * per_cell, -1) for x in maps]
    return torch.cat(rows, dim=1)
