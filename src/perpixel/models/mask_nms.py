"""Detections told apart by their masks alone: thesis 002, 5.3.5 and table 5.6."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.ops.mask_nms import mask_nms, tight_boxes
from perpixel.ops.masks import resize_where_masked
from perpixel.structures import BoxMasks, Candidates, ImageMasks, Keypoints

Predict = Callable[[Candidates], BoxMasks | ImageMasks | Keypoints]

AT_ONCE = 32
"""Masks that exist as probabilities at any time; of all candidates one bit of each place is kept, as a byte."""


@dataclass(frozen=True)
class MaskNMS:
    """Every candidate's mask is predicted, and a worse one falls to a better one of its class that it overlaps.

    The selection before it should leave duplicates alone and pass more than are kept: model.selection.iou=1
    model.selection.keep=500.

    Attributes:
        iou: overlap of masks above which the worse falls; the thesis does not tell its own, this is its box NMS's.
        keep: detections an image.
    """

    iou: float = 0.6
    keep: int = 100

    def choose(self, candidates: Candidates, predict: Predict, sizes: Sequence[tuple[int, int]]) -> Candidates:
        """The candidates that stay, image by image, best first; their boxes are those around their masks.

        Args:
            candidates: scored, of all images.
            predict: the instance head's prediction for candidates.
            sizes: (height, width) of each image inside the padding.
        """
        rows, boxes = [], []
        for image, size in enumerate(sizes):
            inside = torch.nonzero(candidates.image == image).squeeze(1)
            found = candidates.rows(inside)
            assert found.scores is not None
            masks = _at_mask_stride(found, predict, size)
            best = mask_nms(masks, found.scores, found.labels, self.iou)[: self.keep]
            rows.append(inside[best])
            boxes.append(_around_masks(found.rows(best), predict, size))
        return replace(candidates.rows(torch.cat(rows)), boxes=torch.cat(boxes).to(candidates.boxes.dtype))


def _at_mask_stride(candidates: Candidates, predict: Predict, size: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    """Where each mask is more likely than not, at the places whose middle pixel lies in the image."""
    parts = []
    for some in _in_parts(candidates):
        masks = _of_the_image(predict(some))
        height, width = (-(-(side - masks.stride // 2) // masks.stride) for side in size)
        parts.append(masks.values[:, :height, :width] > 0.5)
    return torch.cat(parts)


def _around_masks(candidates: Candidates, predict: Predict, size: tuple[int, int]) -> Float[Tensor, "n 4"]:
    """The box around each mask, to the pixel of the network's input."""
    parts = []
    for some in _in_parts(candidates):
        masks = _of_the_image(predict(some))
        parts.append(tight_boxes(resize_where_masked(masks.values, masks.stride, size, size)))
    return torch.cat(parts)


def _in_parts(candidates: Candidates) -> list[Candidates]:
    rows = torch.arange(len(candidates), device=candidates.image.device)
    return [candidates.rows(part) for part in rows.split(AT_ONCE)]


def _of_the_image(predicted: BoxMasks | ImageMasks | Keypoints) -> ImageMasks:
    if not isinstance(predicted, ImageMasks):
        raise InputError(
            "model.mask_nms compares masks of the whole image, and this model predicts "
            f"{type(predicted).__name__}: leave it null"
        )
    return predicted
