"""What tells detections of one object from detections of two, and so the order of suppression and the instance head's work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.candidates import Selection
from perpixel.ops.groups import rows_by
from perpixel.ops.keypoints import enclosing_boxes
from perpixel.ops.mask_nms import mask_nms, tight_boxes
from perpixel.ops.mask_windows import each_mask
from perpixel.ops.set_nms import set_nms
from perpixel.structures import BoxMasks, Candidates, DenseOutputs, ImageMasks, Keypoints

Found = BoxMasks | ImageMasks | Keypoints
Predict = Callable[[Candidates], Found | None]
"""The instance head's prediction for candidates; None of a detector of boxes."""

AT_ONCE = 32
"""Masks that exist as probabilities at any time; of all candidates one bit of each place is kept, as a byte."""


@dataclass(frozen=True)
class BoxNMS:
    """Boxes tell: NMS as the selection has it.

    Attributes:
        instances: the instance head works for what NMS leaves (MEInst), or for all that enters NMS (TensorMask): the two
            strategies of PointINS, section 4.1, "Inference Details". The results are the same, the second costs more.
    """

    instances: Literal["after", "before"] = "after"

    def find(
        self, selection: Selection, outputs: DenseOutputs, sizes: Sequence[tuple[int, int]], predict: Predict
    ) -> tuple[Candidates, Found | None]:
        """The detections, image by image, best first, and what the instance head says of them.

        Args:
            selection: which locations enter, and the NMS.
            outputs: of the box head.
            sizes: (height, width) of each image inside the padding.
            predict: the instance head's prediction for candidates.
        """
        entering = selection.entering(outputs, sizes)
        surviving = selection.surviving(entering, len(sizes))
        if self.instances == "before":
            every = predict(entering)
            return entering.rows(surviving), None if every is None else every.rows(surviving)
        found = entering.rows(surviving)
        return found, predict(found)


@dataclass(frozen=True)
class SetNMS:
    """Boxes tell, but a box never suppresses one of its own cell: Set NMS (Chu et al. 2020; thesis 002, 3.3.5).

    For FCOS with several boxes a cell (`per_cell`), which are trained on different objects; with one it finds what `BoxNMS` does.
    """

    def find(
        self, selection: Selection, outputs: DenseOutputs, sizes: Sequence[tuple[int, int]], predict: Predict
    ) -> tuple[Candidates, Found | None]:
        """As `BoxNMS.find`."""
        entering = selection.entering(outputs, sizes)
        assert entering.scores is not None
        cells = entering.location // outputs.locations.anchors_per_cell
        surviving = []
        for rows in rows_by(entering.image, len(sizes)):
            boxes, scores, labels = entering.boxes[rows], entering.scores[rows], entering.labels[rows]
            surviving.append(rows[set_nms(boxes, scores, labels, cells[rows], selection.iou, selection.keep)])
        found = entering.rows(torch.cat(surviving))
        return found, predict(found)


@dataclass(frozen=True)
class MaskNMS:
    """Masks tell: a worse one falls to a better one of its class that it overlaps (thesis 002, 5.3.5, table 5.6).

    Attributes:
        iou: overlap of masks above which the worse falls; the thesis does not tell its own, this is its box NMS's.
        enter: best scored locations of an image whose masks are compared.
        keep: detections an image.
    """

    iou: float = 0.6
    enter: int = 500
    keep: int = 100

    def find(
        self, selection: Selection, outputs: DenseOutputs, sizes: Sequence[tuple[int, int]], predict: Predict
    ) -> tuple[Candidates, Found | None]:
        """As `BoxNMS.find`; of the selection only what enters counts. Boxes are those around the masks."""
        found = self.choose(selection.entering(outputs, sizes), predict, sizes)
        return found, predict(found)

    def choose(self, candidates: Candidates, predict: Predict, sizes: Sequence[tuple[int, int]]) -> Candidates:
        """The candidates that stay, image by image, best first; their boxes are those around their masks."""
        assert candidates.scores is not None
        rows, boxes = [], []
        for inside, size in zip(rows_by(candidates.image, len(sizes)), sizes, strict=True):
            inside = inside[candidates.scores[inside].argsort(descending=True, stable=True)[: self.enter]]
            found = candidates.rows(inside)
            assert found.scores is not None
            masks = _at_mask_stride(found, predict, size)
            best = mask_nms(masks, found.scores, found.labels, self.iou)[: self.keep]
            rows.append(inside[best])
            boxes.append(_around_masks(found.rows(best), predict, size))
        return replace(candidates.rows(torch.cat(rows)), boxes=torch.cat(boxes).to(candidates.boxes.dtype))


@dataclass(frozen=True)
class KeypointNMS:
    """The rectangles around predicted keypoints tell, by the selection's IoU (thesis 002, 4.3: 0.5).

    Attributes:
        enter: best scored locations of an image whose keypoints are compared.
    """

    enter: int = 500

    def find(
        self, selection: Selection, outputs: DenseOutputs, sizes: Sequence[tuple[int, int]], predict: Predict
    ) -> tuple[Candidates, Found | None]:
        """As `BoxNMS.find`; boxes are those around the keypoints."""
        entering = selection.entering(outputs, sizes)
        assert entering.scores is not None
        rows = []
        for inside in rows_by(entering.image, len(sizes)):
            rows.append(inside[entering.scores[inside].argsort(descending=True, stable=True)[: self.enter]])
        entering = entering.rows(torch.cat(rows))
        found = predict(entering)
        if not isinstance(found, Keypoints):
            raise InputError(
                "KeypointNMS compares keypoints, and this model predicts none: set model.duplicates.kind=BoxNMS"
            )
        boxes = enclosing_boxes(found.values[..., :2]).to(entering.boxes.dtype)
        entering = replace(entering, boxes=boxes)
        surviving = selection.surviving(entering, len(sizes))
        return entering.rows(surviving), found.rows(surviving)


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
    parts = [candidates.boxes[:0]]
    for some in _in_parts(candidates):
        masks = each_mask(_of_the_image(predict(some)), some.boxes, size, size)
        parts += [tight_boxes(mask[None]) for mask in masks]
    return torch.cat(parts)


def _in_parts(candidates: Candidates) -> list[Candidates]:
    rows = torch.arange(len(candidates), device=candidates.image.device)
    return [candidates.rows(part) for part in rows.split(AT_ONCE)]


def _of_the_image(predicted: Found | None) -> ImageMasks:
    if not isinstance(predicted, ImageMasks):
        raise InputError(
            "MaskNMS compares masks of the whole image, and this model predicts "
            f"{type(predicted).__name__}: set model.duplicates.kind=BoxNMS"
        )
    return predicted
