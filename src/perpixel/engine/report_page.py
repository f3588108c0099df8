"""The report of a training or an evaluation: one page for people, `metrics.json` for programs and for `perpixel compare`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perpixel.data.dataset import Dataset
from perpixel.engine.evaluate import Evaluation
from perpixel.engine.files import write_text
from perpixel.engine.gallery import evaluation_items, write_gallery
from perpixel.engine.recipe import Recipe, recipe_to_json
from perpixel.engine.report_sections import origin_sections, result_sections, training_section

PAGE, NUMBERS = "report.html", "metrics.json"


def write_report(
    folder: Path,
    recipe: Recipe,
    environment: Mapping[str, str],
    *,
    dataset: Dataset | None = None,
    found: Evaluation | None = None,
    log: Sequence[Mapping[str, Any]] = (),
    step: int | None = None,
    notes: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `report.html`, and `metrics.json` where something was measured; returns the page.

    Args:
        folder: made where it is missing.
        recipe: of the model.
        environment: where it was measured, from `perpixel.engine.environment`.
        dataset: that was measured on.
        found: what was measured.
        log: rows of the training's log, for its curves.
        step: of the weights that were measured.
        notes: lines under the heading.
        more: further numbers for `metrics.json`, by name.

    Raises:
        InputError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if found is not None:
        document = {
            **numbers_of(found),
            **(more or {}),
            "step": step,
            "environment": dict(environment),
            **json.loads(recipe_to_json(recipe)),
        }
        write_json(folder / NUMBERS, document)
    training = training_section(log)
    return write_gallery(
        folder / PAGE,
        evaluation_items(dataset, found) if dataset is not None and found is not None else (),
        f"perpixel: {recipe.name}",
        # The score of the best F1, so that the page counts on its photos what the table counts on all of them.
        score=next((mistakes.score for mistakes in found.mistakes.values()), 0.5) if found is not None else 0.5,
        notes=notes,
        sections=[*(result_sections(found) if found is not None else ()), training],
        after=origin_sections(recipe, environment),
    )


def numbers_of(found: Evaluation) -> dict[str, Any]:
    """All that was measured, as plain values."""
    numbers: dict[str, Any] = {
        "summary": found.summary,
        "per_class": {k: m.to_dict() for k, m in found.metrics.items()},
    }
    for name, metrics in (("panoptic", found.panoptic), ("semantic", found.semantic), ("crowd", found.crowd)):
        if metrics is not None:
            numbers[name] = metrics.to_dict()
    if found.mistakes:
        numbers["mistakes"] = {kind: mistakes.to_dict() for kind, mistakes in found.mistakes.items()}
    return numbers


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, whole or not at all."""
    write_text(path, json.dumps(value))
