"""Average precision and recall as COCOeval defines them, over dicts in COCO's form.

hotcoco does the matching; this file and `mistakes` are the only ones that know it. The summary is averaged here from its
precision and recall arrays, so that any number of detections an image can be asked for.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

import numpy as np
from hotcoco import COCO, COCOeval

from perpixel.errors import InputError

Kind = Literal["bbox", "segm", "keypoints"]
RECALLS: tuple[float, ...] = tuple(np.linspace(0, 1, 101).round(2).tolist())
"""The recalls at which precision curves are sampled."""


@dataclass(frozen=True)
class ClassMetrics:
    """One row of the per-class table; -1 where the truth has no object of the class.

    Attributes:
        name, category_id: the class, as the truth calls it.
        truth: objects in the truth, crowds left out.
        detections: results of the class, before any limit.
        ap, ap50, ap75: average precision at IoU .50:.95, .50 and .75.
        small, medium, large: AP of objects of this size alone (keypoints: small is -1).
        recall: average recall at the full number of detections.
        curve: precision at `RECALLS`, IoU .50.
    """

    name: str
    category_id: int
    truth: int
    detections: int
    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    recall: float
    curve: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class Metrics:
    """What COCOeval would say, in fractions (0.371, not 37.1); -1 where the truth has no such object.

    Attributes:
        kind: what was compared: boxes, masks or keypoints.
        summary: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, in this order (keypoints: AP, AP50, AP75,
            APm, APl, AR, AR50, AR75, ARm, ARl). With another limit than 100 the key AR100 holds that number.
        per_class: a row a class, in the truth's order.
        curve, curve75: mean precision over the classes at `RECALLS`, IoU .50 and .75; empty without truth.
    """

    kind: Kind
    summary: dict[str, float]
    per_class: list[ClassMetrics]
    curve: tuple[float, ...] = field(repr=False)
    curve75: tuple[float, ...] = field(repr=False)

    def mean_over(self, names: Collection[str]) -> dict[str, float]:
        """AP, AP50 and AP75 averaged over some classes, those without truth left out."""
        rows = [row for row in self.per_class if row.name in names]
        columns = {"AP": [r.ap for r in rows], "AP50": [r.ap50 for r in rows], "AP75": [r.ap75 for r in rows]}
        return {name: _mean(np.array(values)) for name, values in columns.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def coco_metrics(
    truth: dict[str, Any],
    results: list[dict[str, Any]],
    kind: Kind = "bbox",
    max_detections: int | None = None,
    sigmas: Sequence[float] | None = None,
) -> Metrics:
    """Scores `results` against `truth`, both in COCO's form.

    Args:
        truth: a dict with images, annotations, categories.
        results: COCO results: image_id, category_id, score and bbox (xywh), segmentation (run lengths) or keypoints.
        kind: what to compare. Objects whose mask the truth does not have count neither way among masks, like crowds.
        max_detections: best results counted an image; by default COCO's 100 (keypoints: 20).
        sigmas: spread of each keypoint; needed where there are not COCO's 17.

    Raises:
        InputError: results of an image that the truth does not have, or keypoints without known sigmas.
    """
    evaluation, truth, results = evaluated(truth, results, kind, max_detections, sigmas)
    evaluation.accumulate()
    # precision: (iou, recall, class, area, limit); recall: (iou, class, area, limit).
    arrays = cast(dict[str, np.ndarray], evaluation.eval)
    precision, recall = arrays["precision"], arrays["recall"]
    areas = {name: i for i, name in enumerate(evaluation.params.areaRngLbl)}
    return Metrics(
        kind,
        _summary(kind, precision, recall, areas, evaluation.params.maxDets),
        _per_class(truth, results, precision[..., -1], recall[:, :, areas["all"], -1], areas),
        _curve(precision[0, :, :, areas["all"], -1]),
        _curve(precision[5, :, :, areas["all"], -1]),
    )


def evaluated(
    truth: dict[str, Any],
    results: list[dict[str, Any]],
    kind: Kind,
    max_detections: int | None = None,
    sigmas: Sequence[float] | None = None,
) -> tuple[COCOeval, dict[str, Any], list[dict[str, Any]]]:
    """The evaluator after matching, and truth and results as it knows them: images numbered, results by their position + 1.

    Arguments and errors are those of `coco_metrics`.
    """
    truth, results = _numbered(_judged(truth, kind), results)
    limit = max_detections or (20 if kind == "keypoints" else 100)
    reference = COCO(truth)
    evaluation = COCOeval(reference, reference.loadRes(results), kind)
    evaluation.params.maxDets = [limit] if kind == "keypoints" else sorted({min(n, limit) for n in (1, 10)} | {limit})
    if kind == "keypoints":
        _set_sigmas(evaluation, truth, sigmas)
    evaluation.evaluate()
    return evaluation, truth, results


def _judged(truth: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """The truth with objects that have no mask as crowds of their boxes, where masks are compared."""
    if kind != "segm":
        return truth
    annotations = []
    for annotation in truth["annotations"]:
        if not annotation.get("segmentation"):
            x, y, width, height = annotation["bbox"]
            box = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotation = annotation | {"iscrowd": 1, "segmentation": [box]}
        annotations.append(annotation)
    return truth | {"annotations": annotations}


def _numbered(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Both with images numbered in the order of their ids, which may be text, and what COCOeval needs filled in.

    Annotations are numbered anew from 1: to pycocotools a match with annotation 0 looks like no match, and of two with
    the same id one would hide the other.
    """
    number = {identity: i for i, identity in enumerate(sorted((image["id"] for image in truth["images"]), key=_rank))}
    for result in results:
        if result["image_id"] not in number:
            raise InputError(f"the results hold image_id {result['image_id']}, which the truth does not have")
    annotations = []
    for i, annotation in enumerate(truth["annotations"], start=1):
        _, _, width, height = annotation["bbox"]
        filled = {"iscrowd": 0, "area": width * height, **annotation}
        annotations.append(filled | {"id": i, "image_id": number[annotation["image_id"]]})
    images = [image | {"id": number[image["id"]]} for image in truth["images"]]
    numbered = {"info": {}, **truth, "images": images, "annotations": annotations}
    return numbered, [result | {"image_id": number[result["image_id"]]} for result in results]


def _rank(identity: int | str) -> tuple[bool, int | str]:
    """Numbers in their order, then texts in theirs."""
    return isinstance(identity, str), identity


def _set_sigmas(evaluation: COCOeval, truth: dict[str, Any], sigmas: Sequence[float] | None) -> None:
    counts = {len(a["keypoints"]) // 3 for a in truth["annotations"] if a.get("keypoints")}
    if sigmas is not None:
        evaluation.params.kpt_oks_sigmas = list(sigmas)
    expected = len(evaluation.params.kpt_oks_sigmas)
    if counts - {expected}:
        raise InputError(
            f"the truth has {max(counts)} keypoints an object but {expected} sigmas are known: set data.sigmas to one a keypoint"
        )


def _summary(
    kind: Kind, precision: np.ndarray, recall: np.ndarray, areas: dict[str, int], limits: list[int]
) -> dict[str, float]:
    whole = areas["all"]
    sized = {letter: areas[name] for letter, name in (("s", "small"), ("m", "medium"), ("l", "large")) if name in areas}
    values = {
        "AP": _mean(precision[:, :, :, whole, -1]),
        "AP50": _mean(precision[0, :, :, whole, -1]),
        "AP75": _mean(precision[5, :, :, whole, -1]),
    }
    values |= {f"AP{letter}": _mean(precision[:, :, :, area, -1]) for letter, area in sized.items()}
    if kind == "keypoints":
        values["AR"] = _mean(recall[:, :, whole, -1])
        values |= {"AR50": _mean(recall[0, :, whole, -1]), "AR75": _mean(recall[5, :, whole, -1])}
    else:
        values |= {f"AR{limit}": _mean(recall[:, :, whole, i]) for i, limit in enumerate(limits)}
    return values | {f"AR{letter}": _mean(recall[:, :, area, -1]) for letter, area in sized.items()}


def _mean(values: np.ndarray) -> float:
    """Mean of what is defined (> -1), or -1 where nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _per_class(
    truth: dict[str, Any],
    results: list[dict[str, Any]],
    precision: np.ndarray,
    recall: np.ndarray,
    areas: dict[str, int],
) -> list[ClassMetrics]:
    objects = Counter(a["category_id"] for a in truth["annotations"] if not a.get("iscrowd"))
    found = Counter(r["category_id"] for r in results)
    # The evaluator's class axis is sorted by id; the table keeps the truth's order.
    column = {category: i for i, category in enumerate(sorted(c["id"] for c in truth["categories"]))}
    rows = []
    for category in truth["categories"]:
        identity = category["id"]
        curves = {name: precision[:, :, column[identity], area] for name, area in areas.items()}
        sized = {name: _mean(curves[name]) if name in curves else -1.0 for name in ("small", "medium", "large")}
        rows.append(
            ClassMetrics(
                name=category["name"],
                category_id=identity,
                truth=objects[identity],
                detections=found[identity],
                ap=_mean(curves["all"]),
                ap50=_mean(curves["all"][0]),
                ap75=_mean(curves["all"][5]),
                **sized,
                recall=_mean(recall[:, column[identity]]),
                curve=tuple(curves["all"][0].tolist()),
            )
        )
    return rows


def _curve(precision: np.ndarray) -> tuple[float, ...]:
    """Mean over the classes that have truth."""
    defined = precision[:, (precision > -1).all(0)]
    return tuple(defined.mean(1).tolist()) if defined.size else ()
