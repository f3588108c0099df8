"""The blender's steps (thesis 004, 4.3.2): bases cut out by boxes, attentions enlarged to them, both merged into mask logits.

Pure functions; whoever joins image-level maps with an instance's coarse map over its box uses them.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from perpixel.ops.axes import between

Sampling = Literal["bilinear", "nearest"]


def cut_bases(
    bases: Float[Tensor, "b k h w"],
    boxes: Float[Tensor, "n 4"],
    image: Int[Tensor, " n"],
    stride: int,
    size: int,
    sampling: Sampling = "bilinear",
) -> Float[Tensor, "n k s s"]:
    """The bases over each box, brought to one size: eq. 4.1.

    Args:
        bases: maps of the images.
        boxes: xyxy in pixels of the network's input.
        image: the row of `bases` that each box belongs to.
        stride: pixels of the input a step of the bases.
        size: R, cells a side.
        sampling: RoIAlign with one sample a cell (`bilinear`), or RoIPool (`nearest`), which rounds boxes to whole steps of the
            bases and takes the largest value (table 4.6).
    """
    regions = torch.cat([image[:, None].to(boxes.dtype), boxes], dim=1).to(bases.dtype)
    if sampling == "nearest":
        return roi_pool(bases, regions, size, spatial_scale=1 / stride)
    return roi_align(bases, regions, size, spatial_scale=1 / stride, sampling_ratio=1, aligned=True)


def enlarge(
    attention: Float[Tensor, "n k m m"], size: int, sampling: Sampling = "bilinear"
) -> Float[Tensor, "n k s s"]:
    """Attentions at the size of the cut bases: eq. 4.2 (table 4.5)."""
    if sampling == "nearest":
        return F.interpolate(attention, size=(size, size), mode="nearest")
    return F.interpolate(attention, size=(size, size), mode="bilinear", align_corners=False)


def laid_over(
    bases: Float[Tensor, "_ k h w"], attention: Float[Tensor, "n k m m"], boxes: Float[Tensor, "n 4"], stride: int
) -> Float[Tensor, "n k h w"]:
    """Attentions at every step of maps of the whole image; beyond its box an attention goes on as at its nearest edge.

    Args:
        bases: the maps, `stride` pixels a step.
        attention: over the boxes.
        boxes: xyxy, pixels; a side counts as one pixel at least.
        stride: see there.
    """
    count, cells = len(boxes), attention.shape[-1]
    weights = []
    for axis, steps in ((1, bases.shape[2]), (0, bases.shape[3])):
        start, side = boxes[:, axis, None], (boxes[:, axis + 2] - boxes[:, axis])[:, None].clamp(min=1)
        pixels = (torch.arange(steps, device=boxes.device) + 0.5) * stride
        at = (pixels - start) / side * cells - 0.5
        weights.append(between(at.flatten(), cells).unflatten(0, (count, steps))[:, None])
    return weights[0] @ attention @ weights[1].mT


def blend(bases: Float[Tensor, "#n k h w"], attention: Float[Tensor, "n k h w"]) -> Float[Tensor, "n h w"]:
    """Mask logits: the bases weighted by the softmax of the attentions over k, summed (eq. 4.3 and 4.4)."""
    return (attention.softmax(dim=1) * bases).sum(dim=1)


def blend_one(basis: Float[Tensor, "n 1 s s"], attention: Float[Tensor, "n 1 s s"]) -> Float[Tensor, "n s s"]:
    """Mask logits from a single basis (table 4.3, K = 1), where a softmax would leave the attention no say.

    Sigmoids of both are multiplied into the mask's probability p = s(r) s(a). Its logit, which losses want, is exactly
    log(p / (1 - p)) = -log(exp(-r) + exp(-a) + exp(-r - a)).
    """
    r, a = basis[:, 0], attention[:, 0]
    return -torch.stack([-r, -a, -r - a]).logsumexp(dim=0)


def assemble(bases: Float[Tensor, "n k s s"], cells: int) -> Float[Tensor, "n s s"]:
    """Mask logits put together from position-sensitive bases, with no attention at all (table 4.1, "Assembler"; FCIS).

    The box is cut into `cells` x `cells` equal parts; part (i, j) is that of basis i * cells + j. It is the blender with fixed
    one-hot attentions, enlarged to the nearest.
    """
    fixed = torch.eye(cells * cells, dtype=bases.dtype, device=bases.device).reshape(1, -1, cells, cells)
    return (enlarge(fixed, bases.shape[-1], "nearest") * bases).sum(dim=1)
