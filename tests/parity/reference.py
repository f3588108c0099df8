"""A golden file, and how far ours is from it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .deterministic import SAMPLE, sampled

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True)
class Reference:
    """The golden files of one model."""

    name: str

    @property
    def anchors(self) -> bool:
        return "retinanet" in self.name

    @cached_property
    def infer(self) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / self.name / "infer.npz") as arrays:
            return dict(arrays)

    @property
    def has_targets(self) -> bool:
        return (GOLDEN / self.name / "train_targets.npz").exists()

    @cached_property
    def targets(self) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / self.name / "train_targets.npz") as arrays:
            return dict(arrays)

    @cached_property
    def meta(self) -> dict:
        return json.loads((GOLDEN / self.name / "meta.json").read_text())

    @cached_property
    def gradients(self) -> dict:
        return json.loads((GOLDEN / self.name / "train_grads.json").read_text())

    @cached_property
    def entries(self) -> dict[str, list[int]]:
        return json.loads((GOLDEN / "keys" / f"{self.name}.json").read_text())["entries"]

    def difference(self, key: str, ours: Tensor) -> float:
        """Largest difference from the stored tensor over its largest magnitude, over the sampled elements and the totals of all.

        Totals are the sums of magnitudes and of squares, relative to themselves, and the extremes relative to the magnitude.
        """
        stored = self.infer
        assert tuple(stored[f"{key}@shape"]) == tuple(ours.shape), f"{key}: {tuple(ours.shape)}"
        _, absolute, squares, least, greatest = stored[f"{key}@stats"]
        largest = max(abs(least), abs(greatest))
        exact = ours.detach().double()
        wanted = torch.from_numpy(stored[key]).double().flatten()
        parts = [
            (sampled(exact, max(SAMPLE, len(wanted))) - wanted).abs().max().item() / largest,
            abs(exact.abs().sum().item() / absolute - 1),
            abs(exact.square().sum().item() / squares - 1),
            abs(exact.min().item() - least) / largest,
            abs(exact.max().item() - greatest) / largest,
        ]
        return max(parts)


@dataclass(frozen=True)
class Agreement:
    """Detections paired with the stored ones; `rows` is our row of each stored one, -1 where there is none."""

    boxes: float
    scores: float
    unpaired: int
    rows: Tensor


def pair_detections(
    ours: tuple[Tensor, Tensor, Tensor], theirs: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> Agreement:
    """Each stored detection with our nearest box of its class, one to one; nearness in pixels.

    Returns:
        Largest box and score difference of the pairs, how many detections of either side have no partner, and who
        belongs to whom. Scores lie as close as 2e-7, so rank pairs nothing.
    """
    boxes, scores, labels = ours
    wanted_boxes, wanted_scores, wanted_labels = (torch.from_numpy(values) for values in theirs)
    taken = torch.zeros(len(boxes), dtype=torch.bool)
    box_error = score_error = 0.0
    rows = torch.full((len(wanted_boxes),), -1)
    for i, (box, score, label) in enumerate(zip(wanted_boxes, wanted_scores, wanted_labels, strict=True)):
        distance = (boxes - box).abs().amax(dim=1)
        distance = torch.where((labels == label) & ~taken, distance, float("inf"))
        if not len(distance) or distance.min() > 1:
            continue
        row = rows[i] = int(distance.argmin())
        taken[row] = True
        box_error = max(box_error, distance[row].item())
        score_error = max(score_error, abs(scores[row].item() - score.item()))
    return Agreement(box_error, score_error, int((rows < 0).sum() + (~taken).sum()), rows)
