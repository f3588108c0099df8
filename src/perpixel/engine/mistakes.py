"""What kinds of mistakes a detector makes: TIDE's six (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection
Errors", ECCV 2020, section 2.2), counted at one score and weighed by what mending each alone would bring.

A detection is right if it is matched to an object of its class at an IoU of .5 or more, as COCO matches: the best score first,
each object once. Any other is one mistake, and the first of these rules that holds says which:

* localisation: its best overlap with an object of its class is .1 or more and below .5
* class: it overlaps an object of another class by .5 or more
* duplicate: it overlaps an object of its class by .5 or more, which a detection with a better score has already found
* background: it overlaps no object by more than .1
* both: what is left, a loose box around an object of another class
* missed: an object that no detection found, unless a localisation or class mistake above stands for it

Crowds are objects of no class but their own here, and a detection that lies on one by half or more is no mistake.
hotcoco counts and weighs; the tests hold a slow loop of these rules against it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from perpixel.engine.metrics import evaluated

Mistake = Literal["class", "localisation", "both", "duplicate", "background", "missed"]
MISTAKES: dict[Mistake, str] = {
    "class": "Well placed on an object, but its class is wrong.",
    "localisation": "On an object of its class, but placed badly: overlap between .1 and .5.",
    "both": "Placed badly, on an object of another class.",
    "duplicate": "On an object that another detection with a better score has found already.",
    "background": "Where there is no object at all: overlap of .1 at most with any.",
    "missed": "An object that nothing found, not even with a wrong class or a bad place.",
}
"""Each kind in one sentence."""
_HOTCOCO: dict[Mistake, str] = {
    "class": "Cls",
    "localisation": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}
SCORES: tuple[float, ...] = tuple(k / 100 for k in range(100))
"""Least scores that are tried: 0, .01 ... .99."""


@dataclass(frozen=True)
class Tally:
    """Right and wrong detections and missed objects of one image, or of all."""

    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there is nothing to find and nothing found."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0

    @property
    def rank(self) -> tuple[float, float]:
        """Orders images from the worst: by F1, then by how much is right less how much is not."""
        return self.f1, float(self.right - self.wrong - self.missed)


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of one kind of result.

    Attributes:
        kind: what overlaps were measured of: boxes or masks.
        score: the highest of `SCORES` from which on detections have the best F1; counts are of detections from it on.
        tally: of the whole set at that score.
        counts: mistakes of each kind at that score.
        gains: by how much AP50 over all detections would rise, were the mistakes of this kind alone mended.
        precision, recall: of all images together at each of `SCORES`; precision is -1 where nothing is found.
        images: (n,) what each image of the truth adds to `tally`, in the truth's order.
    """

    kind: Literal["bbox", "segm"]
    score: float
    tally: Tally
    counts: dict[Mistake, int]
    gains: dict[Mistake, float]
    precision: tuple[float, ...] = field(repr=False)
    recall: tuple[float, ...] = field(repr=False)
    images: tuple[Tally, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single images."""
        values = asdict(self)
        del values["images"]
        return values


def find_mistakes(
    truth: dict[str, Any],
    results: list[dict[str, Any]],
    kind: Literal["bbox", "segm"],
    max_detections: int | None = None,
) -> Mistakes:
    """The mistakes in `results`; arguments and errors as of `perpixel.engine.metrics.coco_metrics`."""
    evaluation, judged, numbered = evaluated(truth, results, kind, max_detections)
    status: dict[int, str] = evaluation.image_diagnostics(iou_thr=0.5)["dt_status"]
    # Results are numbered from 1; those on crowds, and those past the limit, are neither right nor wrong.
    counted = [(r["image_id"], r["score"], status[i] == "tp") for i, r in enumerate(numbered, 1) if i in status]
    scores = np.array([score for _, score, _ in counted], dtype=np.float64)
    hits = np.array([hit for _, _, hit in counted], dtype=bool)
    wanted = Counter(a["image_id"] for a in judged["annotations"] if not a["iscrowd"])
    objects = wanted.total()
    right, found = _from(scores[hits]), _from(scores)
    score = _best_score(right, found, objects)
    # Matching goes from the best score down, so what worse detections are changes no better one's status.
    of_image = Counter((image, hit) for image, value, hit in counted if value >= score)
    images = []
    for image in judged["images"]:
        hit = of_image[image["id"], True]
        images.append(Tally(hit, of_image[image["id"], False], wanted[image["id"]] - hit))
    kept = [result for result in results if result["score"] >= score]
    counts = evaluated(truth, kept, kind, max_detections)[0].tide_errors()["counts"]
    gains = evaluation.tide_errors()["delta_ap"]
    return Mistakes(
        kind=kind,
        score=score,
        tally=Tally(*(sum(getattr(one, name) for one in images) for name in ("right", "wrong", "missed"))),
        counts={name: int(counts[theirs]) for name, theirs in _HOTCOCO.items()},
        gains={name: float(gains[theirs]) for name, theirs in _HOTCOCO.items()},
        precision=tuple((np.where(found, right, -1) / np.maximum(found, 1)).tolist()),
        recall=tuple((right / max(objects, 1)).tolist()),
        images=tuple(images),
    )


def _from(scores: np.ndarray) -> np.ndarray:
    """How many reach each of `SCORES`."""
    return len(scores) - np.searchsorted(np.sort(scores), SCORES)


def _best_score(right: np.ndarray, found: np.ndarray, objects: int) -> float:
    """The highest of `SCORES` with the best F1; .5 where nothing is right at any."""
    if not right.any():
        return 0.5
    f1 = 2 * right / (found + objects)
    return SCORES[int(np.flatnonzero(f1 == f1.max())[-1])]


def mistake_rows(mistakes: Mistakes) -> Sequence[tuple[Mistake, str, int, float]]:
    """Name, sentence, count and gain of each kind."""
    return [(name, says, mistakes.counts[name], mistakes.gains[name]) for name, says in MISTAKES.items()]
