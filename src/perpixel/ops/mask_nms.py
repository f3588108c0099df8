"""Non-maximum suppression by the overlap of masks: no box is needed."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CHUNK_BYTES = 64 * 2**20


def mask_iou(masks: Bool[Tensor, "n h w"], chunk_bytes: int = CHUNK_BYTES) -> Float[Tensor, "n n"]:
    """Intersection over union of every pair; 0 where both masks are empty.

    Args:
        masks: of one image.
        chunk_bytes: memory for masks as numbers at any time: the intersections are one matrix product, summed over parts of the
            pixels.
    """
    pixels = masks.flatten(1)
    together = torch.zeros(len(masks), len(masks), device=masks.device)
    step = max(1, chunk_bytes // (4 * max(1, len(masks))))
    with torch.autocast(masks.device.type, enabled=False):
        for part in pixels.split(step, dim=1):
            numbers = part.float()
            together += numbers @ numbers.T
    area = together.diagonal()
    return together / (area[:, None] + area - together).clamp(min=1)


def mask_nms(
    masks: Bool[Tensor, "n h w"], scores: Float[Tensor, " n"], labels: Int[Tensor, " n"], iou: float
) -> Int[Tensor, " m"]:
    """The rows that survive, best first.

    A mask falls to a better one of its class that survived and overlaps it by more than `iou`; one without a pixel falls too.
    """
    present = masks.any(2).any(1)
    kept = [labels.new_zeros(0)]
    for label in labels[present].unique():
        rows = torch.nonzero(present & (labels == label)).squeeze(1)
        rows = rows[torch.argsort(scores[rows], descending=True, stable=True)]
        kept.append(rows[_survivors(mask_iou(masks[rows]) > iou)])
    found = torch.cat(kept)
    return found[torch.argsort(scores[found], descending=True, stable=True)]


def tight_boxes(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """The smallest box around each mask's pixels, xyxy; a box of no size around an empty mask."""
    across, down = masks.any(1), masks.any(2)
    sides = [_first(across), _first(down), _last(across), _last(down)]
    return torch.stack(sides, dim=1) * across.any(1, keepdim=True)


def _first(present: Bool[Tensor, "n p"]) -> Float[Tensor, " n"]:
    return present.int().argmax(1).float()


def _last(present: Bool[Tensor, "n p"]) -> Float[Tensor, " n"]:
    return present.shape[1] - _first(present.flip(1))


def _survivors(overlaps: Bool[Tensor, "n n"]) -> Bool[Tensor, " n"]:
    """Of rows sorted by score, those that no surviving row before them overlaps."""
    table = overlaps.cpu().numpy()
    alive = np.ones(len(table), dtype=bool)
    for row in range(len(table)):
        if alive[row]:
            alive[row + 1 :] &= ~table[row, row + 1 :]
    return torch.from_numpy(alive).to(overlaps.device)
