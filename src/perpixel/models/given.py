"""Masks of boxes that are given, not found: the locations that stand for them, as candidates of the instance head.

The box is taken for true, so there is no threshold and no NMS: every given box gets one location, whatever its score.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perpixel.models.candidates import candidates_at, detection_scores, positives, to_detections
from perpixel.models.detector import Detector
from perpixel.models.heads import BoxHead
from perpixel.ops.assign import joined
from perpixel.ops.boxes import overlap
from perpixel.structures import Batch, Candidates, DenseOutputs, Detections, Locations, Targets

ANY_CLASS = -1
"""A label for boxes of a class that the model does not know: the class that scores best at a location counts."""

SPAN = 16.0
"""Longest side, in strides, of an object that a level takes: FCOS's distances of up to 8 strides to either side."""


@torch.inference_mode()
def predict_given(model: Detector, batch: Batch) -> list[Detections]:
    """What the instance head says of the boxes in `batch.targets`, in their order; labels may be `ANY_CLASS`.

    A score is that of the location that stands for the box: detection score times IoU of the predicted box with the given one.
    """
    outputs, dense = model(model.normalized(batch))
    candidates = represent(model.box_head, outputs, batch.truth())
    return to_detections(candidates, model.describe(dense, candidates), batch.sizes)


def represent(box_head: BoxHead, outputs: DenseOutputs, given: Sequence[Targets]) -> Candidates:
    """One candidate for each given box, ordered by image, then by row.

    Its location is, of those that the box head would train on the box, the one with the largest detection score times IoU of
    predicted and given box (ties: the nearest to the box's centre). A box that no location is trained on gets the location
    nearest to its centre at the level of its size.

    Args:
        box_head, outputs: the detector's.
        given: the boxes of each image; labels may be `ANY_CLASS`.

    Returns:
        n candidates whose `boxes` are the given ones, `target` their rows, `scores` the product above.
    """
    assigned = positives(outputs, box_head.assign(outputs.locations, given), given)
    assert assigned.target is not None
    boxes, first = joined([targets.boxes for targets in given])
    labels, _ = joined([targets.labels for targets in given])
    image_of = torch.arange(len(given), device=first.device).repeat_interleave(
        torch.tensor([len(targets) for targets in given], device=first.device)
    )
    alone = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    alone[first[assigned.image] + assigned.target] = False
    lonely = alone.nonzero()[:, 0]
    nearest = [nearest_locations(outputs.locations, box) for box in boxes[lonely]]
    counts = torch.tensor([len(found) for found in nearest], dtype=torch.long, device=first.device)
    owner = torch.cat([first[assigned.image] + assigned.target, lonely.repeat_interleave(counts)])
    location = torch.cat([assigned.location, *nearest])
    image, label = image_of[owner], labels[owner]
    label = torch.where(label == ANY_CLASS, outputs.logits[image, location].argmax(dim=1), label)
    found = candidates_at(outputs, image, location, boxes[owner], label, target=owner - first[image])
    scores = detection_scores(outputs, found) * overlap(found.predicted, found.boxes)[0]
    best = _best_of_each(owner, scores, (found.points - _centers(found.boxes)).norm(dim=1))
    return replace(found, scores=scores).rows(best)


def nearest_locations(locations: Locations, box: Float[Tensor, " 4"]) -> Int[Tensor, " m"]:
    """The locations nearest to the box's centre at the level whose objects have its size; several where they share a point."""
    strides = torch.stack([locations.strides[locations.levels == level][0] for level in range(len(locations.shapes))])
    too_small = SPAN * strides < (box[2:] - box[:2]).amax()
    level = too_small.sum().clamp(max=len(strides) - 1)
    distance = (locations.points - _centers(box[None])).norm(dim=1)
    distance = torch.where(locations.levels == level, distance, torch.inf)
    return (distance == distance.min()).nonzero()[:, 0]


def _centers(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 2"]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _best_of_each(
    owner: Int[Tensor, " m"], scores: Float[Tensor, " m"], distance: Float[Tensor, " m"]
) -> Int[Tensor, " n"]:
    """The best row of each owner, by owner: largest score, then least distance."""
    order = torch.argsort(distance, stable=True)
    order = order[torch.argsort(scores[order], descending=True, stable=True)]
    order = order[torch.argsort(owner[order], stable=True)]
    sorted_owner = owner[order]
    return order[torch.cat([sorted_owner.new_ones(1), sorted_owner.diff()]).bool()[: len(order)]]
