"""Losses as pure functions; sums, so that the caller names the normaliser."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def focal_loss(
    logits: Float[Tensor, "n k"],
    labels: Int[Tensor, " n"],
    alpha: float = 0.25,
    gamma: float = 2.0,
    weight: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Sum of the sigmoid focal loss over rows and classes (Lin et al. 2017).

    Nearly every entry is a negative, so the loss is taken as if all were and corrected at the positives: no one-hot target of
    the size of the logits is ever built.

    Args:
        logits: class logits.
        labels: class of each row, -1 for background.
        alpha: weight of positives; negatives weigh 1 - alpha.
        gamma: exponent that quiets well classified entries.
        weight: weight of each row, 1 if None; 0 leaves a row out.
    """
    # p^gamma * -log(1 - p), with -log(1 - p) = softplus(x)
    negative = (1 - alpha) * logits.sigmoid().pow(gamma) * F.softplus(logits)
    rows = torch.nonzero(labels >= 0).squeeze(1)
    x = logits[rows, labels[rows]]
    p = x.sigmoid()
    correction = alpha * (1 - p).pow(gamma) * F.softplus(-x) - (1 - alpha) * p.pow(gamma) * F.softplus(x)
    if weight is None:
        return negative.sum() + correction.sum()
    return (negative.sum(dim=1) * weight).sum() + (correction * weight[rows]).sum()


def smooth_l1(difference: Float[Tensor, "*n"], beta: float) -> Float[Tensor, "*n"]:
    """Huber's loss over beta: quadratic below `beta`, linear above; plain absolute value at beta 0."""
    size = difference.abs()
    if beta == 0:
        return size
    return torch.where(size < beta, 0.5 * size.square() / beta, size - 0.5 * beta)


def dice_loss(
    probability: Float[Tensor, "n *p"], truth: Float[Tensor, "n *p"], smoothing: float = 1e-5
) -> Float[Tensor, " n"]:
    """1 - 2 sum(p t) / (sum(p^2) + sum(t^2) + smoothing) of each row (Milletari et al. 2016; thesis 002, 5.2.3).

    Args:
        probability, truth: 0..1 at the same places.
        smoothing: added below (AdelaiDet 1e-5, mmdetection 5e-6).
    """
    probability, truth = probability.flatten(1), truth.flatten(1)
    both = (probability * truth).sum(dim=1)
    return 1 - 2 * both / (probability.square().sum(dim=1) + truth.square().sum(dim=1) + smoothing)


def centerness(distances: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Nearness of a location to the centre of its box, 0..1: thesis 002, eq. 3.3.

    Args:
        distances: left, top, right, bottom in any one unit. Outside a box (a negative side) the value is 0.
    """
    horizontal, vertical = distances[..., 0::2].clamp(min=0), distances[..., 1::2].clamp(min=0)
    tiny = torch.finfo(distances.dtype).tiny
    ratio = horizontal.amin(-1) / horizontal.amax(-1).clamp(min=tiny)
    return (ratio * vertical.amin(-1) / vertical.amax(-1).clamp(min=tiny)).sqrt()
