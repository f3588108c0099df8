"""From masks of objects and a map of stuff to segments that share no pixel: the rule of Panoptic FPN (Kirillov et al. 2019)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perpixel.errors import InputError
from perpixel.ops.axes import at_pixels_of_photo, between
from perpixel.ops.mask_windows import Window
from perpixel.structures import Segments

CHUNK_BYTES = 64 * 2**20
"""Memory for logits at full size at any time."""


@dataclass(frozen=True)
class Merge:
    """How objects and stuff share the pixels; the defaults are the thesis's (004, 4.4.4; the area is Panoptic FPN's).

    Attributes:
        score: objects of a lower score are left out.
        overlap: an object is left out if better ones hold more than this share of its mask.
        stuff_area: stuff of fewer pixels of the photo is left out, and its pixels belong to no segment.
    """

    score: float = 0.2
    overlap: float = 0.4
    stuff_area: int = 4096

    def __post_init__(self) -> None:
        for name in ("score", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"model.merge.{name}={getattr(self, name)} is not between 0 and 1")
        if self.stuff_area < 0:
            raise InputError(f"model.merge.stuff_area={self.stuff_area} is not a number of pixels")


THESIS = Merge()
RELEASED = Merge(score=0.45)
"""Of AdelaiDet's panoptic models."""


def merge(
    masks: Iterable[Window],
    labels: Int[Tensor, " n"],
    scores: Float[Tensor, " n"],
    stuff: Int[Tensor, "h w"],
    things: int,
    rule: Merge,
) -> Segments:
    """Objects, the best first, take the pixels of their masks that no better one has; stuff takes what is left.

    Args:
        masks: of n objects in pixels of the photo, best first, one at a time (`perpixel.ops.mask_windows`).
        labels, scores: of the objects, best first.
        stuff: class of every pixel: 0 an object of any class, s + 1 stuff of class s.
        things: classes of objects: stuff of class s gets the label things + s.
        rule: what is left out.
    """
    owner = torch.full_like(stuff, -1, dtype=torch.int32)
    # Decided on the device: the host that puts the masks in a queue does not wait for each.
    count, taken = owner.new_zeros(()), labels.new_zeros(len(labels), dtype=torch.bool)
    wanted = int((scores >= rule.score).sum())
    for row, (y, x, mask) in zip(range(wanted), masks, strict=False):
        under = owner[y, x]
        free = mask & (under < 0)
        area, left = mask.sum().double(), free.sum()
        taken[row] = (left > 0) & (area - left <= rule.overlap * area)
        owner[y, x] = torch.where(free & taken[row], count, under)
        count = count + taken[row]
    rows = torch.nonzero(taken).squeeze(1)
    rest = (owner < 0) & (stuff > 0)
    areas = torch.bincount(stuff[rest], minlength=1)
    present = torch.nonzero(areas >= max(rule.stuff_area, 1)).squeeze(1)
    row_of = torch.full((len(areas),), -1, dtype=torch.int32, device=stuff.device)
    row_of[present] = torch.arange(len(present), dtype=torch.int32, device=stuff.device) + len(rows)
    owner[rest] = row_of[stuff[rest]]
    return Segments(
        map=owner,
        labels=torch.cat([labels[rows], things - 1 + present]),
        scores=torch.cat([scores[rows].float(), torch.ones_like(present, dtype=torch.float32)]),
        crowd=torch.zeros(len(rows) + len(present), dtype=torch.bool, device=labels.device),
    )


def class_map(
    logits: Float[Tensor, "k h w"],
    stride: int,
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    chunk_bytes: int = CHUNK_BYTES,
) -> Int[Tensor, "h2 w2"]:
    """The class of largest logit at every pixel of the photo.

    Logits are enlarged bilinearly to the padded input, cropped to the image inside the padding, brought bilinearly to the
    photo's size. Both steps are separable, so an axis is one matrix; full-size logits exist for some rows at a time.

    Args:
        logits: (k, h, w) at `stride` pixels of the input a step.
        stride: pixels of the input an index step.
        input_size: (height, width) of the image inside the padding.
        original_size: (height, width) of the photo.
        chunk_bytes: memory for full-size logits at any time.
    """
    logits = logits.float()
    down = _axis(logits.shape[1], stride, input_size[0], original_size[0], logits.device)
    across = _axis(logits.shape[2], stride, input_size[1], original_size[1], logits.device)
    wide = logits @ across.T
    rows = max(1, chunk_bytes // (wide.element_size() * wide.shape[0] * wide.shape[2]))
    return torch.cat([torch.einsum("yh,khx->kyx", part, wide).argmax(dim=0) for part in down.split(rows)])


def _axis(cells: int, stride: int, inside: int, pixels: int, device: torch.device) -> Float[Tensor, "pixels cells"]:
    """Both steps along one axis; pixel p of the input lies (p + 0.5) / stride - 0.5 cells from the first one."""
    return at_pixels_of_photo(between((torch.arange(inside, device=device) + 0.5) / stride - 0.5, cells), pixels)
