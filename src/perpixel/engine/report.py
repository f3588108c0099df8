"""Evaluating a checkpoint as a user does: numbers on the terminal, files and a page to look at."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perpixel.data.cityscapes import CityscapesDataset
from perpixel.data.dataset import Dataset
from perpixel.data.loader import test_batches
from perpixel.data.lvis import LvisDataset
from perpixel.data.open import open_dataset
from perpixel.data.settings import TestSize
from perpixel.engine.augmented import Augmented, Views
from perpixel.engine.checkpoint import build_model
from perpixel.engine.cityscapes_metrics import cityscapes_metrics
from perpixel.engine.crowd_metrics import CrowdMetrics
from perpixel.engine.environment import environment
from perpixel.engine.evaluate import Evaluation, check_keypoints, evaluate
from perpixel.engine.logs import read_log
from perpixel.engine.lvis_metrics import LIMIT, lvis_metrics
from perpixel.engine.mistakes import Mistakes
from perpixel.engine.panoptic_metrics import PanopticMetrics
from perpixel.engine.recipe import Recipe
from perpixel.engine.report_page import write_json, write_report
from perpixel.engine.runs import RunFolder
from perpixel.engine.semantic_table import print_semantic
from perpixel.engine.weights import open_checkpoint
from perpixel.errors import InputError


def evaluate_checkpoint(
    path: Path | str,
    settings: Callable[[Recipe], Recipe],
    *,
    out: Path | None = None,
    device: torch.device | str = "cpu",
    max_detections: int | None = None,
    batch_size: int = 1,
    examples: int = 40,
    views: Views | None = None,
) -> Evaluation:
    """Measures a checkpoint on its validation split, prints tables and writes files.

    Args:
        path: the checkpoint, or the name of published weights.
        settings: changes to its recipe: another data.val, another size.
        out: folder for report.html, metrics.json and results.json; None writes nothing.
        device: where to compute.
        max_detections: best results counted an image; None is COCO's 100.
        batch_size: images computed at once.
        examples: images in the report.
        views: test-time augmentation; None sees each image once.

    Raises:
        InputError: no checkpoint, no validation split, or data whose classes or keypoints are not the checkpoint's.
    """
    checkpoint = open_checkpoint(path)
    recipe = settings(checkpoint.recipe)
    data = recipe.data
    if data.val is None:
        raise InputError(
            "data.val is not set: name the annotations to evaluate on, such as data.val=instances_val.json"
        )
    dataset = open_dataset(
        data.val,
        data.val_images,
        classes=checkpoint.class_names,
        stuff=checkpoint.stuff.names,
        segments=data.val_segments,
        skip_bad=data.skip_bad,
        all_stuff=data.stuff == "all",
    )
    check_keypoints(recipe.model.keypoint_names(), dataset, data.sigmas)
    model = build_model(replace(checkpoint, recipe=recipe)).to(device)
    if views is not None:
        # The views are made from the batch's images: read them at the largest size, one at a time.
        data = replace(data, test=TestSize(max(views.short_sides), views.max_side))
        model, batch_size = Augmented(model, views, flip_pairs=dataset.flip_pairs), 1
    batches = test_batches(dataset, data, batch_size=batch_size)
    shown = examples if out is not None else 0
    found = evaluate(model, dataset, batches, device, max_detections, shown, sigmas=data.sigmas)
    print_metrics(found)
    by_cityscapes = _by_cityscapes(dataset, found)
    by_lvis = _by_lvis(dataset, found, max_detections)
    unseen = _without_masks(found, data.masks_of)
    if unseen:
        print("  ".join(["masks of classes that were trained without:", *(f"{k} {v:.4f}" for k, v in unseen.items())]))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        if by_cityscapes:
            write_json(out / "cityscapes.json", by_cityscapes)
        if by_lvis:
            write_json(out / "lvis.json", by_lvis)
        write_json(out / "results.json", found.results)
        run = RunFolder(Path(path).parent)
        page = write_report(
            out,
            recipe,
            environment(str(device)),
            dataset=dataset,
            found=found,
            log=read_log(run.log) if run.recipe.is_file() and run.log.is_file() else (),
            step=checkpoint.step,
            notes=[f"checkpoint {path}, step {checkpoint.step}", f"data {data.val}: {found.images} images"],
            more={"unseen": unseen} if unseen else {},
        )
        print(f"look at {page}")
    for sentence in dataset.skipped:
        print(f"left out: {sentence}")
    return found


def _without_masks(found: Evaluation, masks_of: Collection[str] | None) -> dict[str, float]:
    """Mask AP over the classes whose masks training withheld; nothing where it withheld none (thesis 002, 6.3.6)."""
    if masks_of is None or "segm" not in found.metrics:
        return {}
    metrics = found.metrics["segm"]
    return metrics.mean_over({row.name for row in metrics.per_class} - set(masks_of))


def _by_cityscapes(dataset: Dataset, found: Evaluation) -> dict[str, Any]:
    """Prints and returns the masks' AP by Cityscapes' own rules; nothing for other data, or without masks."""
    if not isinstance(dataset, CityscapesDataset) or "segm" not in found.metrics:
        return {}
    summary, table = cityscapes_metrics(dataset, found.results)
    print("by Cityscapes' rules: " + "  ".join(f"{name} {value:.4f}" for name, value in summary.items()))
    print("  ".join(f"{name} {row['AP']:.4f}" for name, row in table.items()))
    return {"summary": summary, "per_class": table}


def _by_lvis(dataset: Dataset, found: Evaluation, max_detections: int | None) -> dict[str, dict[str, float]]:
    """Prints and returns AP of boxes and masks by LVIS's own rules; nothing for other data."""
    if not isinstance(dataset, LvisDataset):
        return {}
    truth = dataset.coco_truth()
    limit = max_detections or LIMIT
    numbers = {
        kind: lvis_metrics(truth, found.results, kind, limit) for kind in ("bbox", "segm") if kind in found.metrics
    }
    for kind, values in numbers.items():
        print(f"{kind} by LVIS's rules: " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
    return numbers


def print_metrics(found: Evaluation) -> None:
    """The summary and the table of classes of each kind of result."""
    console = Console(width=None if Console().is_terminal else 120)
    for kind, metrics in found.metrics.items():
        console.print(
            "  ".join(f"{name} [bold]{value:.4f}[/bold]" for name, value in metrics.summary.items()), highlight=False
        )
        table = Table(box=None, padding=(0, 2, 0, 0), title=f"{kind} by class", title_justify="left")
        for i, heading in enumerate(("class", "objects", "found", "AP", "AP50", "AP75", "recall")):
            table.add_column(heading, justify="right" if i else "left")
        for row in metrics.per_class:
            numbers = (f"{value:.4f}" for value in (row.ap, row.ap50, row.ap75, row.recall))
            table.add_row(Text(row.name), str(row.truth), str(row.detections), *numbers)
        console.print(table)
    if found.panoptic is not None:
        _print_panoptic(console, found.panoptic)
    if found.semantic is not None:
        print_semantic(console, found.semantic)
    if found.crowd is not None:
        for line in _of_a_crowd(found.crowd):
            console.print(line, highlight=False)
    for mistakes in found.mistakes.values():
        console.print(_mistakes_in_words(mistakes), highlight=False)


def _of_a_crowd(crowd: CrowdMetrics) -> list[str]:
    names = ("AP", "MR-2", "JI")
    return [
        "by CrowdHuman's rules: " + "  ".join(f"{name} {crowd.summary[name]:.4f}" for name in names),
        f"JI is best from score {crowd.score} on; at one false positive an image {crowd.recall:.4f} of all are found, and "
        f"{crowd.crowded_recall:.4f} of the {crowd.crowded} that another overlaps by more than half",
    ]


def _mistakes_in_words(mistakes: Mistakes) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in mistakes.counts.items())
    return f"{mistakes.kind} mistakes from score {mistakes.score:.2f} on (best F1 {mistakes.tally.f1:.4f}): {counts}"


def _print_panoptic(console: Console, panoptic: PanopticMetrics) -> None:
    for kind, end in (("all", ""), ("things", "_things"), ("stuff", "_stuff")):
        line = "  ".join([f"{kind}:", *(f"{name} {panoptic.summary[name + end]:.4f}" for name in ("PQ", "SQ", "RQ"))])
        console.print(line, highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), title="panoptic quality by class", title_justify="left")
    for i, heading in enumerate(("class", "kind", "true", "predicted", "PQ", "SQ", "RQ")):
        table.add_column(heading, justify="right" if i > 1 else "left")
    for row in panoptic.per_class:
        numbers = (f"{value:.4f}" for value in (row.pq, row.sq, row.rq))
        table.add_row(Text(row.name), "thing" if row.thing else "stuff", str(row.truth), str(row.predicted), *numbers)
    console.print(table)
