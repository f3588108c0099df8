"""A model against a data set: COCO results, their metrics, and the photos to look at."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from perpixel.data.dataset import Dataset
from perpixel.data.panoptic import segments_of
from perpixel.engine.bar import counting_bar
from perpixel.engine.crowd_metrics import CrowdMetrics, crowd_metrics, is_crowd
from perpixel.engine.examples import Example, Kept, instances_of
from perpixel.engine.instances import Instances
from perpixel.engine.metrics import Kind, Metrics, coco_metrics
from perpixel.engine.mistakes import Mistakes, find_mistakes
from perpixel.engine.panoptic_metrics import Counts, PanopticMetrics, count_segments, panoptic_metrics
from perpixel.engine.semantic_metrics import PixelCounts, SemanticMetrics, count_pixels, semantic_metrics
from perpixel.errors import InputError
from perpixel.models.heads import Model
from perpixel.models.skeleton import sigmas_of
from perpixel.structures import VOID, Batch, Segments

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: by kind: "bbox", and "segm" and "keypoints" where model and truth have them.
        results: COCO results of the whole set, in the order of its images.
        examples: what was found in the images kept to look at, in the order to show them in.
        images: images evaluated.
        seconds: time for data and model together, metrics not counted.
        panoptic: panoptic quality, where the model gives segments and the truth knows stuff.
        semantic: how well pixels are told, where the truth is stuff alone.
        crowd: AP, MR^-2 and JI of people, for CrowdHuman and synthetic crowds.
        mistakes: by kind, "bbox" and "segm", what is wrong with boxes and masks; where examples were asked for.
    """

    metrics: dict[Kind, Metrics]
    results: list[dict[str, Any]]
    examples: tuple[Example, ...]
    images: int
    seconds: float
    panoptic: PanopticMetrics | None = None
    semantic: SemanticMetrics | None = None
    crowd: CrowdMetrics | None = None
    mistakes: dict[Kind, Mistakes] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, float]:
        """All numbers by name, such as ``bbox/AP``, ``panoptic/PQ`` and ``crowd/JI``."""
        named = {f"{kind}/{name}": value for kind, m in self.metrics.items() for name, value in m.summary.items()}
        more = {"panoptic": self.panoptic, "semantic": self.semantic, "crowd": self.crowd}
        return named | {f"{kind}/{name}": value for kind, m in more.items() if m for name, value in m.summary.items()}


def evaluate(
    model: Model,
    dataset: Dataset,
    batches: Iterable[Batch],
    device: torch.device | str = "cpu",
    max_detections: int | None = None,
    examples: int = 0,
    progress: bool = True,
    sigmas: tuple[float, ...] | None = None,
) -> Evaluation:
    """Runs `model` over `batches` of `dataset` and scores what it finds.

    Under torch.distributed each process runs its own batches; results are gathered and every process returns the same.
    Only images that arrive in `batches` count: those the loader left out as unreadable are not missed objects. The
    model's mode (training or evaluation) is as before afterwards.

    Args:
        model: on `device` already.
        dataset: gives the truth; `Batch.ids` are its indices.
        batches: as `perpixel.data.loader.test_batches` makes them.
        device: where the model computes.
        max_detections: best results counted an image; None is COCO's 100 (keypoints: 20).
        examples: images kept in `Evaluation.examples`: the worst, the best, some evenly spread. With 0 nobody asks for
            mistakes either.
        progress: whether to show a bar.
        sigmas: spread of each keypoint; None: COCO's, by their names.

    Raises:
        InputError: the model gives keypoints whose spread nobody knows.
    """
    started = time.perf_counter()
    truth = dataset.coco_truth()
    kept = Kept(examples, len(dataset))
    found: dict[int, list[dict[str, Any]]] = {}
    counts: dict[int, Counts] = {}
    pixels: dict[int, PixelCounts] = {}
    given: dict[Kind, bool] = {}
    training = model.training
    model.eval()
    try:
        with counting_bar("evaluate", len(dataset), show=progress) as bar, torch.inference_mode():
            for batch in batches:
                detections = model.predict(batch.to(device, non_blocking=True))
                for index, original, one in zip(batch.ids, batch.originals, detections, strict=True):
                    instances = Instances.from_detections(
                        one, original, dataset.classes, skeleton=dataset.skeleton, stuff_names=dataset.stuff.names
                    )
                    found[index] = instances.to_coco(truth["images"][index]["id"], dataset.category_ids)
                    given |= {"segm": True} if one.masks is not None else {}
                    given |= {"keypoints": True} if one.keypoints is not None else {}
                    if instances.segments is not None and not dataset.classes:
                        pixels[index] = counted_pixels(dataset, index, instances.segments)
                        quality = semantic_metrics([pixels[index]], dataset.stuff.names).mean_iou
                        kept.offer(index, (quality, 0.0), f"mIoU {quality:.2f}", instances)
                    elif instances.segments is not None and dataset.stuff:
                        counts[index] = _counted(dataset, index, instances.segments)
                        quality = panoptic_metrics([counts[index]], dataset.classes, dataset.stuff.names).summary["PQ"]
                        kept.offer(index, (quality, 0.0), f"PQ {quality:.2f}", instances)
                bar.advance(len(batch))
    finally:
        model.train(training)
    found, counts, given = _gathered(found), _gathered(counts), _gathered(given)
    pixels, kept.rows = _gathered(pixels), _gathered(kept.rows)
    seconds = time.perf_counter() - started
    truth = _restricted(truth, found.keys())
    results = [result for index in sorted(found) for result in found[index]]
    metrics: dict[Kind, Metrics] = {}
    for kind in _kinds(truth, given):
        spread = keypoint_spread(dataset, sigmas) if kind == "keypoints" else None
        metrics[kind] = coco_metrics(truth, results, kind, max_detections, spread)
    # In the order of the images, whichever process had them: sums of fractions depend on it.
    in_order = [counts[index] for index in sorted(counts)]
    panoptic = panoptic_metrics(in_order, dataset.classes, dataset.stuff.names) if counts else None
    semantic = semantic_metrics([pixels[index] for index in sorted(pixels)], dataset.stuff.names) if pixels else None
    crowd = crowd_metrics(truth, results) if is_crowd(dataset) and found else None
    mistakes: dict[Kind, Mistakes] = {}
    for kind in ("bbox", "segm"):
        if examples and kind in metrics:
            mistakes[kind] = find_mistakes(truth, results, kind, max_detections)
    if mistakes and not kept.rows:  # images without segments are ranked at the score that is best for all of them
        for index, tally in zip(sorted(found), list(mistakes.values())[-1].images, strict=True):
            kept.offer(index, tally.rank, f"F1 {tally.f1:.2f}", instances_of(found[index], dataset, index))
    return Evaluation(metrics, results, kept.chosen(), len(found), seconds, panoptic, semantic, crowd, mistakes)


def check_keypoints(predicted: tuple[str, ...], dataset: Dataset, sigmas: tuple[float, ...] | None) -> None:
    """Says before any work that a model's keypoints cannot be judged by a data set's; a set without any judges boxes alone.

    Args:
        predicted: names of the model's keypoints; none of a model without.
        dataset: of the evaluation.
        sigmas: spread of each keypoint; None: COCO's, by their names.

    Raises:
        InputError: the data have other keypoints, or keypoints whose spread nobody knows.
    """
    if not (predicted and dataset.keypoint_names):
        return
    if predicted != dataset.keypoint_names:
        raise InputError(
            f"{dataset.name}: its keypoints are {', '.join(dataset.keypoint_names)}, and the model predicts "
            f"{', '.join(predicted)}: evaluate on data with the same keypoints in the same order"
        )
    keypoint_spread(dataset, sigmas)


def keypoint_spread(dataset: Dataset, sigmas: tuple[float, ...] | None) -> tuple[float, ...]:
    """The sigma that each keypoint is judged by: `sigmas`, or COCO's where the keypoints have its names.

    Raises:
        InputError: other names and no `sigmas`, or not one for each keypoint.
    """
    names = dataset.keypoint_names
    found = sigmas or sigmas_of(names)
    if found is None or len(found) != len(names):
        raise InputError(
            f"{dataset.name}: evaluation judges each of its {len(names)} keypoints by a sigma, and "
            f"{'none are' if found is None else f'{len(found)} are'} known: set data.sigmas to {len(names)} numbers, in the "
            f"order {', '.join(names)} (COCO's eye has 0.025, its hip 0.107)"
        )
    return found


def _counted(dataset: Dataset, index: int, predicted: Segments) -> Counts:
    return count_segments(segments_of(dataset, index), predicted, len(dataset.classes) + len(dataset.stuff))


def counted_pixels(dataset: Dataset, index: int, predicted: Segments) -> PixelCounts:
    """Of an image whose classes are all stuff: the label of a segment is its class."""
    stuff = torch.from_numpy(dataset.stuff_map(index)).int()
    truth = torch.where((stuff == VOID) | (stuff == 0), VOID, stuff - 1)
    labels = torch.cat([predicted.labels, predicted.labels.new_full((1,), -1)])  # the last is that of no segment
    return count_pixels(truth, labels[predicted.map].int(), len(dataset.stuff))


def _restricted(truth: dict[str, Any], indices: Iterable[int]) -> dict[str, Any]:
    """The truth of these images only: one that could not be read must not count as missed."""
    images = [truth["images"][index] for index in sorted(indices)]
    kept = {image["id"] for image in images}
    return truth | {"images": images, "annotations": [a for a in truth["annotations"] if a["image_id"] in kept]}


def _kinds(truth: dict[str, Any], given: dict[Kind, bool]) -> list[Kind]:
    """Boxes of any objects; masks and keypoints where the model gives them, found or not, and the truth has them."""
    if not truth["categories"]:
        return []
    fields: dict[Kind, str] = {"segm": "segmentation", "keypoints": "keypoints"}
    known = [kind for kind, field in fields.items() if any(a.get(field) for a in truth["annotations"])]
    return ["bbox", *(kind for kind in known if kind in given)]


def _gathered(rows: dict[K, V]) -> dict[K, V]:
    """The rows of all processes; an image that two processes had counts once."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    parts: list[dict[K, V] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, rows)
    return {index: row for part in parts if part for index, row in part.items()}
