"""Which locations stand for objects: positives in training, survivors of NMS at inference, and policies among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import batched_nms

from perpixel.ops.assign import IGNORED, joined
from perpixel.ops.boxes import clip_boxes
from perpixel.ops.groups import rows_by
from perpixel.ops.losses import focal_loss
from perpixel.structures import (
    BoxMasks,
    Candidates,
    DenseOutputs,
    Detections,
    ImageMasks,
    Keypoints,
    Matches,
    Targets,
)


def candidates_at(
    outputs: DenseOutputs,
    image: Int[Tensor, " n"],
    location: Int[Tensor, " n"],
    boxes: Float[Tensor, "n 4"],
    labels: Int[Tensor, " n"],
    scores: Float[Tensor, " n"] | None = None,
    target: Int[Tensor, " n"] | None = None,
) -> Candidates:
    """Candidates at the given locations, with everything the locations know."""
    where = outputs.locations
    return Candidates(
        image=image,
        location=location,
        level=where.levels[location],
        cell=where.cells(location),
        points=where.points[location],
        strides=where.strides[location],
        boxes=boxes,
        predicted=outputs.boxes[image, location].detach(),
        anchors=None if where.anchors is None else where.anchors[location],
        labels=labels,
        scores=scores,
        target=target,
    )


def positives(outputs: DenseOutputs, matches: Matches, targets: Sequence[Targets]) -> Candidates:
    """Every location matched to an object, as (target box, target label); ordered by image, then location."""
    image, location = torch.nonzero(matches.target >= 0, as_tuple=True)
    target = matches.target[image, location]
    boxes, first = joined([t.boxes for t in targets])
    labels, _ = joined([t.labels for t in targets])
    row = first[image] + target
    return candidates_at(outputs, image, location, boxes[row], labels[row], target=target)


def class_loss(
    outputs: DenseOutputs,
    matches: Matches,
    found: Candidates,
    image_weight: Float[Tensor, " b"],
    alpha: float,
    gamma: float,
) -> Float[Tensor, ""]:
    """Weighted sum of the focal loss over every location that is not ignored.

    Args:
        outputs, matches: of the batch.
        found: its positives.
        image_weight: weight of each image: one over the normaliser.
        alpha, gamma: of the focal loss.
    """
    labels = torch.full_like(matches.target, -1)
    labels[found.image, found.location] = found.labels
    weight = (matches.target != IGNORED) * image_weight[:, None]
    return focal_loss(outputs.logits.flatten(0, 1), labels.flatten(), alpha, gamma, weight.flatten())


def detection_scores(outputs: DenseOutputs, candidates: Candidates) -> Float[Tensor, " n"]:
    """Class probability at each candidate's label, times the quality where the head predicts one."""
    at = (candidates.image, candidates.location)
    score = outputs.logits[(*at, candidates.labels)].sigmoid()
    return score if outputs.quality is None else score * outputs.quality[at].sigmoid()


@dataclass(frozen=True)
class RandomPositives:
    """At most `limit` positives of the batch, drawn at random (CondInst: 500); None: all."""

    limit: int | None = 500

    def choose(self, candidates: Candidates) -> Candidates:
        """The drawn rows, in their old order."""
        draw = torch.randperm(len(candidates), device=candidates.image.device)[: self.limit]
        return candidates.rows(draw.sort().values)


@dataclass(frozen=True)
class BestPositives:
    """The best scored positives of each object: of an image's `per_image` places every object gets the same number.

    BoxInst: 64 an image, ranked by class probability times centre-ness.
    """

    per_image: int = 64

    def choose(self, candidates: Candidates) -> Candidates:
        """The best rows of every object, in their old order; needs scores and targets."""
        if candidates.scores is None or candidates.target is None:
            raise ValueError("BestPositives ranks by scores: give candidates scores and targets")
        pairs = torch.stack([candidates.image, candidates.target], dim=1)
        pairs, objects, positives_of = torch.unique(pairs, dim=0, return_inverse=True, return_counts=True)
        objects_in_image = torch.bincount(pairs[:, 0])[pairs[:, 0]]
        places = (self.per_image // objects_in_image).clamp(min=1)
        # Sorted by object, best first; the rank within the object is the distance from its first row.
        order = torch.argsort(candidates.scores, descending=True, stable=True)
        order = order[torch.argsort(objects[order], stable=True)]
        owner = objects[order]
        rank = torch.arange(len(order), device=order.device) - (positives_of.cumsum(0) - positives_of)[owner]
        return candidates.rows(order[rank < places[owner]].sort().values)


@dataclass(frozen=True)
class Selection:
    """From dense outputs to detections: thesis 002, 3.2.1 "Inference" and facts of the reference implementations.

    Attributes:
        threshold: least score.
        threshold_on: what must pass it: `class` the class probability p alone, `product` p * quality, `score` the final
            score sqrt(p * quality). Without a quality branch all three are p.
        per_level: best scored locations of each level that enter NMS.
        iou: overlap above which the worse of two boxes of a class is suppressed.
        keep: detections an image.
        clip_first: boxes are cut at the image's border before NMS (torchvision) or only when they are mapped to the
            original image (AdelaiDet, detectron2).
    """

    threshold: float = 0.05
    threshold_on: Literal["class", "product", "score"] = "class"
    per_level: int = 1000
    iou: float = 0.6
    keep: int = 100
    clip_first: bool = False

    def choose(self, outputs: DenseOutputs, sizes: Sequence[tuple[int, int]]) -> Candidates:
        """The detections of all images as candidates, image by image, best first."""
        entering = self.entering(outputs, sizes)
        return entering.rows(self.surviving(entering, len(sizes)))

    @torch.no_grad()
    def entering(self, outputs: DenseOutputs, sizes: Sequence[tuple[int, int]]) -> Candidates:
        """What NMS chooses from, image by image."""
        image, location, labels, scores = self._above_threshold(outputs)
        levels = len(outputs.locations.shapes)
        kept = torch.cat([
            rows[torch.topk(scores[rows], min(self.per_level, len(rows))).indices]
            for rows in rows_by(image * levels + outputs.locations.levels[location], len(sizes) * levels)
        ])  # fmt: skip
        image, location, labels, scores = image[kept], location[kept], labels[kept], scores[kept]
        boxes = outputs.boxes[image, location]
        if self.clip_first:
            of_images = zip(rows_by(image, len(sizes)), sizes, strict=True)
            boxes = torch.cat([clip_boxes(boxes[rows], size) for rows, size in of_images])
        return candidates_at(outputs, image, location, boxes, labels, scores=scores)

    def surviving(self, entering: Candidates, images: int) -> Int[Tensor, " m"]:
        """Rows that NMS leaves, image by image, best first."""
        assert entering.scores is not None
        kept = []
        for rows in rows_by(entering.image, images):
            best = batched_nms(entering.boxes[rows], entering.scores[rows], entering.labels[rows], self.iou)
            kept.append(rows[best[: self.keep]])
        return torch.cat(kept)

    def _above_threshold(self, outputs: DenseOutputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image, location, label and final score of every pair of a location and a class that passes.

        p alone must pass whatever the product must, for quality <= 1: so logits are compared first, and sigmoids taken only of
        the few that remain.
        """
        bound = self.threshold**2 if self.threshold_on == "score" and outputs.quality is not None else self.threshold
        image, location, labels = torch.nonzero(outputs.logits > _logit(bound * (1 - 1e-5)), as_tuple=True)
        probability = outputs.logits[image, location, labels].sigmoid()
        if outputs.quality is None:
            scores = measured = probability
        else:
            product = probability * outputs.quality[image, location].sigmoid()
            scores = product.sqrt()
            measured = {"class": probability, "product": product, "score": scores}[self.threshold_on]
        passing = torch.nonzero(measured > self.threshold).squeeze(1)
        return image[passing], location[passing], labels[passing], scores[passing]


def to_detections(
    candidates: Candidates, instances: BoxMasks | ImageMasks | Keypoints | None, sizes: Sequence[tuple[int, int]]
) -> list[Detections]:
    """The candidates of each image, and what an instance head says of them, row by row."""
    assert candidates.scores is not None
    detections = []
    for rows, size in zip(rows_by(candidates.image, len(sizes)), sizes, strict=True):
        more = None if instances is None else instances.rows(rows)
        masks, keypoints = (None, more) if isinstance(more, Keypoints) else (more, None)
        boxes, scores, labels = candidates.boxes[rows], candidates.scores[rows], candidates.labels[rows]
        detections.append(Detections(boxes, scores, labels, size, masks, keypoints))
    return detections


def _logit(probability: float) -> float:
    return float(torch.logit(torch.tensor(probability, dtype=torch.float64)))
