"""What mask methods train on: masks of the candidates' objects, in the frame of the image or of a box, and which are known."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perpixel.errors import InputError
from perpixel.ops.assign import IGNORED, joined
from perpixel.ops.boxes import filled_boxes
from perpixel.ops.groups import rows_by
from perpixel.ops.masks import crop_masks
from perpixel.ops.reduce import mean_over_ranks
from perpixel.structures import Candidates, Targets


def mean_count(candidates: Candidates) -> Float[Tensor, ""]:
    """The number of candidates, averaged over processes and never below 1."""
    return mean_over_ranks(torch.tensor(float(len(candidates)), device=candidates.image.device)).clamp(min=1)


def drawn_masks(target: Targets) -> Bool[Tensor, "n h w"]:
    """The masks of an image's objects, each of which must be known.

    Raises:
        InputError: the data were read without masks, or with those of some objects.
    """
    if target.drawn is not None and not target.drawn.all():
        raise InputError("this method learns from the mask of every object: set data.masks=true, not data.masks=some")
    return some_masks(target)


def some_masks(target: Targets) -> Bool[Tensor, "n h w"]:
    """The masks of an image's objects, empty where `Targets.drawn` says so.

    Raises:
        InputError: the data were read without masks.
    """
    if target.masks is None:
        raise InputError(
            "this model learns from masks and the data came without: set data.masks=true (or some, where not all are drawn)"
        )
    return target.masks


def drawn(candidates: Candidates, targets: tuple[Targets, ...]) -> Bool[Tensor, " n"]:
    """Whether the mask of each candidate's object is known.

    Raises:
        InputError: the data were read without masks.
    """
    known, first = joined([
        some_masks(target).new_ones(len(target)) if target.drawn is None else target.drawn for target in targets
    ])  # fmt: skip
    assert candidates.target is not None
    return known[first[candidates.image] + candidates.target]


def masks_of(candidates: Candidates, targets: tuple[Targets, ...], stride: int) -> Bool[Tensor, "n h w"]:
    """The mask of each candidate's object at the middle pixel of every `stride` x `stride` cell."""
    masks, first = joined([some_masks(target)[:, stride // 2 :: stride, stride // 2 :: stride] for target in targets])
    assert candidates.target is not None
    return masks[first[candidates.image] + candidates.target]


def masks_in_boxes(candidates: Candidates, targets: Sequence[Targets], size: int) -> Bool[Tensor, "n s s"]:
    """The mask of each candidate's object, cut out by the candidate's box: an image at a time, as its masks are large."""
    assert candidates.target is not None
    parts = []
    for rows, target in zip(rows_by(candidates.image, len(targets)), targets, strict=True):
        parts.append(crop_masks(drawn_masks(target), candidates.target[rows], candidates.boxes[rows], size))
    return torch.cat(parts)


def semantic_labels(target: Targets, stride: int, first: int | None = None) -> Int[Tensor, "h w"]:
    """The class of the smallest object at one pixel of every cell; -1 where there is none.

    -2 where there may be one: in the boxes of objects whose masks are not known.

    Args:
        target: of an image.
        stride: side of a cell.
        first: the pixel of the first cell, along either axis; None: its middle.
    """
    masks = some_masks(target)
    area = masks.sum(dim=(1, 2)).float()
    start = stride // 2 if first is None else first
    at = masks[:, start::stride, start::stride]
    covered = torch.where(at, area[:, None, None], float("inf"))
    nothing = covered.new_full((1, *covered.shape[1:]), float("inf"))
    least, row = torch.cat([covered, nothing]).min(dim=0)
    labels = torch.where(least.isinf(), -1, torch.cat([target.labels, target.labels.new_tensor([-1])])[row])
    unknown = target.boxes[:0] if target.drawn is None else target.boxes[~target.drawn]
    return labels.where(~filled_boxes(unknown, stride, *labels.shape).any(dim=0), IGNORED)


def masks_of_objects(candidates: Candidates, targets: Sequence[Targets], size: int) -> Bool[Tensor, "n s s"]:
    """The mask of each candidate's object, cut out by the object's own box: each object once, however many candidates it has.

    Raises:
        InputError: the data were read without masks.
    """
    rows = [torch.arange(len(target), device=target.boxes.device) for target in targets]
    parts = [crop_masks(some_masks(t), row, t.boxes, size) for t, row in zip(targets, rows, strict=True)]
    masks, first = joined(parts)
    assert candidates.target is not None
    return masks[first[candidates.image] + candidates.target]
