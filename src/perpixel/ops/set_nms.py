"""Non-maximum suppression that spares boxes predicted together: Set NMS (Chu et al. 2020; thesis 002, 3.3.5)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perpixel.ops.boxes import pairwise_iou


def set_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    sets: Int[Tensor, " n"],
    iou: float,
    keep: int,
) -> Int[Tensor, " m"]:
    """The rows that survive, best first, `keep` at most.

    A box falls to a better one of its class and of another set that survived and overlaps it by more than `iou`. With sets of one
    box this is NMS.
    """
    where = boxes.device
    # Row by row: on an accelerator every step would wait for the one before.
    boxes, labels, sets = boxes.cpu(), labels.cpu(), sets.cpu()
    alive = torch.ones(len(boxes), dtype=torch.bool)
    kept: list[int] = []
    for row in scores.argsort(descending=True, stable=True).tolist():
        if len(kept) == keep:
            break
        if alive[row]:
            kept.append(row)
            rivals = (labels == labels[row]) & (sets != sets[row])
            alive &= ~rivals | (pairwise_iou(boxes[row : row + 1], boxes)[0] <= iou)
    return torch.tensor(kept, dtype=torch.long, device=where)
