"""The sections of a report: numbers by class and size, precision over recall, mistakes, a training's curves, its recipe.

What a model does not predict, or nobody measured, has no section.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from perpixel.config import to_dict
from perpixel.engine.charts import Axis, Line, Point, line_chart
from perpixel.engine.crowd_metrics import CrowdMetrics
from perpixel.engine.evaluate import Evaluation
from perpixel.engine.metrics import RECALLS, Kind, Metrics
from perpixel.engine.mistakes import SCORES, Mistakes, mistake_rows
from perpixel.engine.page import (
    Cell,
    charts,
    code,
    facts,
    folded,
    numbers,
    paragraph,
    percent,
    section,
    side_by_side,
    table,
    whole,
)
from perpixel.engine.palette import color, hexadecimal
from perpixel.engine.panoptic_metrics import PanopticMetrics
from perpixel.engine.recipe import Recipe
from perpixel.engine.semantic_metrics import SemanticMetrics

TITLES: dict[Kind, str] = {"bbox": "Boxes", "segm": "Masks", "keypoints": "Keypoints"}
MEANINGS = {
    "AP": "average precision, mean over IoU .50 to .95",
    "AP50": "average precision at IoU .50",
    "AP75": "average precision at IoU .75",
    "APs": "AP of small objects, below 32 x 32 pixels",
    "APm": "AP of medium objects, up to 96 x 96 pixels",
    "APl": "AP of large objects",
    "AR": "mean recall",
    "AR50": "recall at IoU .50",
    "AR75": "recall at IoU .75",
    "ARs": "recall of small objects",
    "ARm": "recall of medium objects",
    "ARl": "recall of large objects",
    "PQ": "panoptic quality: SQ times RQ",
    "SQ": "mean overlap of the segments found",
    "RQ": "share of segments found, wrong ones counted against it",
    "mIoU": "mean over the classes of intersection over union",
    "mAcc": "mean over the classes of the share of pixels told right",
    "gAcc": "share of all pixels told right",
    "fwIoU": "IoU of the classes weighted by their pixels",
    "tIoU": "mIoU of pixels near the boundaries between classes",
    "MR-2": "log-average miss rate: less is better",
    "JI": "Jaccard index of objects and detections",
}
MOST_CURVES = 20
"""Classes that have a curve of their own."""
HEADLINES = ("AP", "AP50", "AP75", "PQ", "mIoU", "JI", "MR-2")
"""Metrics that are drawn over the steps of a training."""


def result_sections(found: Evaluation) -> list[str]:
    """What was measured: numbers, tables, curves, mistakes."""
    sections = [_of_kind(metrics) for metrics in found.metrics.values()]
    sections += [_panoptic(found.panoptic)] if found.panoptic is not None else []
    sections += [_semantic(found.semantic)] if found.semantic is not None else []
    sections += [_crowd(found.crowd)] if found.crowd is not None else []
    return sections + [_mistakes(mistakes) for mistakes in found.mistakes.values()]


def _of_kind(metrics: Metrics) -> str:
    meant = {name: f"recall at {name[2:]} detections a photo" for name in metrics.summary if name[2:].isdigit()}
    cells = {name: percent(value) for name, value in metrics.summary.items()}
    headings = ["class", "objects", "found", "AP", "AP50", "AP75", "small", "medium", "large", "recall"]
    several = len(metrics.per_class) > 1
    rows = [
        [
            Cell(row.name, color=hexadecimal(color(label)) if several else None),
            whole(row.truth),
            whole(row.detections),
            percent(row.ap, bar=True),
            *map(percent, (row.ap50, row.ap75, row.small, row.medium, row.large, row.recall)),
        ]
        for label, row in enumerate(metrics.per_class)
    ]
    return section(
        f"{TITLES[metrics.kind]}: average precision and recall, per cent",
        numbers(cells, meant | MEANINGS, main="AP"),
        side_by_side(table(headings, rows), _precision_over_recall(metrics)),
    )


def _precision_over_recall(metrics: Metrics) -> str:
    lines = [
        Line(f"IoU {overlap}" + (", mean over classes" if len(metrics.per_class) > 1 else ""), _over(RECALLS, curve))
        for overlap, curve in ((".50", metrics.curve), (".75", metrics.curve75))
    ]
    known = [(label, row) for label, row in enumerate(metrics.per_class) if row.ap >= 0]
    if 1 < len(known) <= MOST_CURVES:
        lines += [
            Line(row.name, _over(RECALLS, row.curve), hexadecimal(color(label)), thin=True) for label, row in known
        ]
    return line_chart("Precision over recall", lines, Axis("recall, %", (0, 100)), Axis("precision, %", (0, 100)))


def _over(across: Sequence[float], values: Sequence[float]) -> list[Point]:
    """Points in per cent."""
    return [(100 * x, 100 * y) for x, y in zip(across, values, strict=False)]


def _panoptic(panoptic: PanopticMetrics) -> str:
    cells = {name.replace("_", " "): percent(value) for name, value in panoptic.summary.items()}
    rows = [
        [
            row.name,
            "thing" if row.thing else "stuff",
            whole(row.truth),
            whole(row.predicted),
            percent(row.pq, bar=True),
            percent(row.sq),
            percent(row.rq),
        ]
        for row in panoptic.per_class
    ]
    headings = ["class", "kind", "true", "predicted", "PQ", "SQ", "RQ"]
    return section("Segments: panoptic quality, per cent", numbers(cells, MEANINGS, main="PQ"), table(headings, rows))


def _semantic(semantic: SemanticMetrics) -> str:
    cells = {name: percent(value) for name, value in semantic.summary.items()}
    rows = [
        [row.name, whole(row.pixels), percent(row.iou, bar=True), percent(row.accuracy), percent(row.trimap_iou)]
        for row in semantic.per_class
    ]
    headings = ["class", "pixels", "IoU", "accuracy", "tIoU"]
    return section("Pixels by class, per cent", numbers(cells, MEANINGS, main="mIoU"), table(headings, rows))


def _crowd(crowd: CrowdMetrics) -> str:
    cells = {name: percent(value) for name, value in crowd.summary.items()}
    return section("People, by CrowdHuman's rules, per cent", numbers(cells, MEANINGS, main="AP"))


def _mistakes(mistakes: Mistakes) -> str:
    tally, most = mistakes.tally, max([*mistakes.gains.values(), 1e-9])
    rows = [
        [name, whole(count), Cell(f"{100 * gain:.1f}", gain, gain / most), says]
        for name, says, count, gain in mistake_rows(mistakes)
    ]
    precision = tally.right / max(tally.right + tally.wrong, 1)
    recall = tally.right / max(tally.right + tally.missed, 1)
    cells = {
        "score": Cell(f"{mistakes.score:.2f}"),
        "F1": percent(tally.f1),
        "precision": percent(precision),
        "recall": percent(recall),
        "right": whole(tally.right),
        "wrong": whole(tally.wrong),
        "missed": whole(tally.missed),
    }
    lines = [Line(name, points) for name, points in score_lines(mistakes.precision, mistakes.recall).items()]
    chart = line_chart("Precision and recall by least score", lines, Axis("least score", (0, 1)), Axis("%", (0, 100)))
    return section(
        f"Mistakes in {TITLES[mistakes.kind].lower()}",
        paragraph(
            "A detection is right if it overlaps an object of its class by .5 or more that no better detection has taken. "
            f"From score {mistakes.score:.2f} on, where F1 is best, these are the numbers; every other detection is one mistake. "
            "The gain is what AP50 of all detections would rise by, in points, were the mistakes of that kind alone mended; "
            "gains do not add up (TIDE, Bolya et al. 2020)."
        ),
        numbers(cells, {"score": "the least score at which the best F1 is reached"}, main="F1"),
        side_by_side(table(["mistake", "count", "gain", "what it is"], rows, look="sentences"), chart),
    )


def score_lines(precision: Sequence[float], recall: Sequence[float]) -> dict[str, list[Point]]:
    """F1, precision and recall in per cent over the least score, as far as anything is found."""
    rows = [(score, p, r) for score, p, r in zip(SCORES, precision, recall, strict=True) if p >= 0]
    return {
        "F1": [(score, 200 * p * r / (p + r) if p + r else 0.0) for score, p, r in rows],
        "precision": [(score, 100 * p) for score, p, _ in rows],
        "recall": [(score, 100 * r) for score, _, r in rows],
    }


def training_section(log: Sequence[Mapping[str, Any]]) -> str:
    """Losses, learning rate and validation over the steps; nothing of an empty log.

    Args:
        log: rows of a run's log.
    """
    steps = Axis("step", (0, max((row["step"] for row in log), default=1)))
    trained = [row for row in log if "losses" in row]
    names = list(dict.fromkeys(name for row in trained for name in row["losses"]))
    losses = [Line("all", [(row["step"], row["loss"]) for row in trained])] if len(names) > 1 else []
    losses += [Line(n, [(row["step"], row["losses"][n]) for row in trained if n in row["losses"]]) for n in names]
    validation = {name: line for name, line in metric_lines(log).items() if name.rsplit("/", 1)[-1] in HEADLINES}
    figures = [
        line_chart("Losses", losses, steps, Axis("loss", log=wide([y for line in losses for _, y in line.points]))),
        line_chart("Validation", [Line(n, points) for n, points in validation.items()], steps, Axis("%")),
        line_chart("Learning rate", [_column(trained, "learning_rate")], steps, Axis("learning rate")),
        line_chart("Gradient norm", [_column(trained, "gradient_norm")], steps, Axis("norm", log=True)),
    ]
    return section("Training", charts(*figures))


def metric_lines(log: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """By name, each metric in per cent over the steps; what the truth has no object for is left out."""
    lines: dict[str, list[Point]] = {}
    for row in log:
        for name, value in row.get("metrics", {}).items():
            if value >= 0:
                lines.setdefault(name, []).append((row["step"], 100 * value))
    return lines


def wide(values: Sequence[float | int]) -> bool:
    """Whether values lie so far apart that only a logarithmic axis shows all of them."""
    positive = [value for value in values if value > 0]
    return len(positive) > 0 and max(positive) > 30 * min(positive)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Line:
    return Line(name.replace("_", " "), [(row["step"], row[name]) for row in rows if name in row])


def origin_sections(recipe: Recipe, environment: Mapping[str, str]) -> list[str]:
    """What it takes to do the same again: command, machine and versions, and every setting."""
    settings = yaml.safe_dump(to_dict(recipe), sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
    return [
        section("Command and environment", facts(environment)),
        section("Recipe", folded(f"every setting of {recipe.name}", code(settings))),
    ]
