"""Keypoints as geometry: the rectangle around them, how like two sets of them are, and the cells they fall on."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def enclosing_boxes(
    points: Float[Tensor, "n k 2"], known: Bool[Tensor, "n k"] | None = None, least_side: float = 0.0
) -> Float[Tensor, "n 4"]:
    """The least rectangle around each row's points (thesis 002, 4.2.1: pseudo-boxes).

    Args:
        points: x, y.
        known: which of them count; None: all. A row of which none counts gets a box of zeros.
        least_side: a rectangle that is narrower or lower grows to this around its middle: points on one line have no area.
    """
    if known is None:
        known = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    far = torch.finfo(points.dtype).max / 4
    low = torch.where(known[..., None], points, far).amin(dim=1)
    high = torch.where(known[..., None], points, -far).amax(dim=1)
    middle, half = (low + high) / 2, ((high - low) / 2).clamp(min=least_side / 2)
    boxes = torch.cat([middle - half, middle + half], dim=1)
    return torch.where(known.any(dim=1, keepdim=True), boxes, 0.0)


def keypoint_similarity(
    difference: Float[Tensor, "n k 2"], area: Float[Tensor, " n"], sigmas: Float[Tensor, " k"]
) -> Float[Tensor, "n k"]:
    """exp(-d^2 / (2 s^2 (2 sigma)^2)) of each keypoint: what COCO's OKS is the mean of.

    Args:
        difference: between two places of a keypoint, in pixels.
        area: s^2 of each object, in square pixels.
        sigmas: spread of each keypoint.
    """
    spread = 8 * area.clamp(min=1e-6)[:, None] * sigmas.square()
    return torch.exp(-difference.square().sum(dim=-1) / spread)


def keypoint_cells(
    points: Float[Tensor, "n k 2"], known: Bool[Tensor, "n k"], stride: int, height: int, width: int
) -> Bool[Tensor, "h w k"]:
    """Whether each cell is the nearest location to a keypoint of each kind (thesis 002, 4.2.3).

    A cell covers `stride` pixels and its location is its middle, so the nearest location is that of the cell that a point is in.
    """
    cells = torch.zeros((height, width, points.shape[1]), dtype=torch.bool, device=points.device)
    x, y = (points / stride).floor().long().unbind(-1)
    row, kind = torch.nonzero(known & (x >= 0) & (x < width) & (y >= 0) & (y < height), as_tuple=True)
    cells[y[row, kind], x[row, kind], kind] = True
    return cells
