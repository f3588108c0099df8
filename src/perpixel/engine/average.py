"""A moving average of the weights, which often evaluates better than the weights themselves."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows it: ``average = d * average + (1 - d) * model`` at every ``update_parameters(model)``.

    d = min(decay, (1 + n) / (10 + n)) after n updates, so that the initial weights are soon forgotten. Floating point
    buffers (BatchNorm's statistics) are averaged alike, others copied.
    """

    @torch.no_grad()
    def update(
        average: tuple[Tensor, ...] | list[Tensor], current: tuple[Tensor, ...] | list[Tensor], updates: Tensor | int
    ) -> None:
        count = int(updates)
        weight = 1 - min(decay, (1 + count) / (10 + count))
        for kept, new in zip(average, current, strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, weight)
            else:
                kept.copy_(new)

    follower = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    follower.requires_grad_(False)
    return follower
