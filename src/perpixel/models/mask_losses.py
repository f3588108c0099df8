"""Losses that several mask methods share: of masks over boxes, and of the classes of an image's cells."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from perpixel.models.mask_truth import semantic_labels
from perpixel.ops.assign import IGNORED
from perpixel.ops.boxes import distances_to_sides
from perpixel.ops.losses import centerness
from perpixel.ops.reduce import mean_over_ranks
from perpixel.structures import VOID, Candidates, Targets


def mask_cross_entropy(logits: Float[Tensor, "n s s"], truth: Bool[Tensor, "n s s"]) -> Float[Tensor, " n"]:
    """Mean cross entropy of each mask's cells."""
    each = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
    return each.mean(dim=(1, 2))


def centered_mask_loss(
    logits: Float[Tensor, "n s s"], truth: Bool[Tensor, "n s s"], candidates: Candidates
) -> Float[Tensor, ""]:
    """Mean over candidates of each one's cross entropy, weighted by centre-ness (BlendMask as released)."""
    near = centerness(distances_to_sides(candidates.points, candidates.boxes))
    return (mask_cross_entropy(logits, truth) * near).sum() / mean_over_ranks(near.sum()).clamp(min=1e-6)


def pixel_cross_entropy(logits: Float[Tensor, "b k _ _"], truth: Integer[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Mean cross entropy at every pixel of the input that is not void, the logits enlarged to it.

    Args:
        logits: at any stride that divides the input.
        truth: class of each pixel, or `VOID`.
    """
    height, width = truth.shape[1:]
    large = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
    total = F.cross_entropy(large, truth.long(), ignore_index=VOID, reduction="sum")
    return total / mean_over_ranks((truth != VOID).sum().to(total.dtype)).clamp(min=1)


def semantic_cross_entropy(
    logits: Float[Tensor, "b k h w"], targets: tuple[Targets, ...], stride: int
) -> Float[Tensor, ""]:
    """Mean cross entropy of each cell's class: the smallest object's at its first pixel, as in AdelaiDet, or background (0)."""
    labels = torch.stack([semantic_labels(target, stride, first=0) for target in targets]) + 1
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED + 1, reduction="sum")
    return total / (labels != IGNORED + 1).sum().clamp(min=1)
