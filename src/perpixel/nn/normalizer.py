"""What a sum of losses is divided by."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.ops.reduce import mean_over_ranks

Normalization = Literal["positives", "moving"]


class PositiveCount(nn.Module):
    """The number of positives, averaged over processes and never below 1.

    `positives` takes this step's count (FCOS). `moving` takes a running mean over steps with momentum 0.9 (detectron2): a
    statistic like BatchNorm's, so it is a buffer, stored in checkpoints and updated in training only.

    Args:
        kind: of the two.
        start: the running mean before the first step (detectron2: 100 for RetinaNet, 300 for FCOS).
    """

    running: Tensor

    def __init__(self, kind: Normalization, start: float = 100.0):
        super().__init__()
        self.kind = kind
        if kind == "moving":
            self.register_buffer("running", torch.tensor(start))

    def forward(self, count: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The divisor for a step with `count` positives."""
        now = mean_over_ranks(count).clamp(min=1)
        if self.kind == "positives":
            return now
        if self.training:
            self.running.copy_(0.9 * self.running + 0.1 * now)
        return self.running.clone()
