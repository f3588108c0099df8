"""Several runs side by side: what they reached, how they got there, and in which settings they differ."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perpixel.data.text import read_text
from perpixel.engine.charts import Axis, Line, Point, line_chart
from perpixel.engine.gallery import write_gallery
from perpixel.engine.logs import read_log
from perpixel.engine.metrics import RECALLS
from perpixel.engine.mistakes import MISTAKES
from perpixel.engine.page import Cell, charts, paragraph, percent, section, table
from perpixel.engine.report_page import NUMBERS
from perpixel.engine.report_sections import HEADLINES, TITLES, metric_lines, wide
from perpixel.engine.runs import RunFolder, flat
from perpixel.errors import InputError

LESS_IS_BETTER = ("MR-2",)


@dataclass(frozen=True)
class Run:
    """What is known of a run, from the folder of a training or of an evaluation.

    Attributes:
        name: on the page.
        settings: its recipe, by dotted path.
        metrics: in fractions, by name.
        log: rows of its training; of an evaluation none.
        numbers: its `metrics.json`; empty of a training before its first evaluation.
    """

    name: str
    settings: dict[str, Any]
    metrics: dict[str, float]
    log: list[dict[str, Any]]
    numbers: dict[str, Any]


def read_run(folder: Path, name: str) -> Run:
    """What a folder of `perpixel train`, or of `perpixel evaluate --out`, holds.

    Raises:
        InputError: neither, or a file that is damaged.
    """
    recipe, log_file, numbers_file = RunFolder(folder).recipe, RunFolder(folder).log, folder / NUMBERS
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name the folder of a run, such as runs/fcos_shapes")
    numbers = _document(numbers_file) if numbers_file.is_file() else {}
    if recipe.is_file():
        stored = _document(recipe)
    elif numbers:
        stored = numbers
    else:
        raise InputError(
            f"{folder} holds neither {recipe.name} nor {NUMBERS}: name the folder of `perpixel train` or of "
            "`perpixel evaluate --out`"
        )
    try:
        log = read_log(log_file) if log_file.is_file() else []
        metrics = numbers.get("summary") or next((row["metrics"] for row in reversed(log) if "metrics" in row), {})
        return Run(
            name, flat(stored.get("recipe", {})), {key: float(value) for key, value in metrics.items()}, log, numbers
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: its files are damaged ({error}); leave this run out") from error


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} is not the file of a run: it holds no object")
    return document


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of these folders, named by as much of each path as tells them apart.

    Raises:
        InputError: a folder without a run, or named twice.
    """
    paths = [folder.resolve() for folder in folders]
    twice = next((folder for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is named twice: name each run once")
    parts = 1
    while len({path.parts[-parts:] for path in paths}) < len(paths):
        parts += 1
    return [read_run(folder, "/".join(path.parts[-parts:])) for folder, path in zip(folders, paths, strict=True)]


def metric_rows(runs: Sequence[Run]) -> list[list[Cell | str]]:
    """A row a metric that some run has: its value in each run and, but for the first, the difference to the first in points."""
    rows: list[list[Cell | str]] = []
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        values = [run.metrics.get(name, -1.0) for run in runs]
        if all(value < 0 for value in values):
            continue
        first, sign = values[0], -1 if name.rsplit("/", 1)[-1] in LESS_IS_BETTER else 1
        row: list[Cell | str] = [name, percent(first)]
        for value in values[1:]:
            row += [percent(value), _difference(value, first, sign)]
        rows.append(row)
    return rows


def _difference(value: float, first: float, sign: int) -> Cell:
    if value < 0 or first < 0:
        return Cell("–", -1.0)
    points = 100 * (value - first)
    look = "" if abs(points) < 0.05 else "good" if sign * points > 0 else "bad"
    return Cell(f"{round(points, 1) + 0.0:+.1f}", points, look=look)


def setting_rows(runs: Sequence[Run]) -> list[list[str]]:
    """A row a setting in which runs differ: its value in each.

    What only some of the runs have belongs to a part of another kind; the row of that kind says enough.
    """
    shared = [path for path in runs[0].settings if all(path in run.settings for run in runs)]
    rows = [[path, *(_written(run.settings[path]) for run in runs)] for path in shared]
    return [row for row in rows if len(set(row[1:])) > 1]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_comparison(path: Path, runs: Sequence[Run]) -> Path:
    """Writes the page.

    Args:
        path: of the HTML file.
        runs: two or more; differences are to the first.

    Raises:
        InputError: the file cannot be written.
    """
    names = [run.name for run in runs]
    heads = [names[0], *(head for name in names[1:] for head in (name, "difference"))]
    metrics = metric_rows(runs)
    says = f"Differences are to {names[0]}, in points."
    if len({_written(run.settings.get("data.val")) for run in runs}) > 1:
        says += " The runs were measured on different data (data.val), so differences say little."
    settings = setting_rows(runs)
    sections = [
        section(
            "Metrics, per cent",
            paragraph(says),
            table(["metric", *heads], metrics),
        )
        if metrics
        else "",
        section("Precision over recall", charts(*_curves(runs))),
        section("Mistakes", *_mistakes(runs)),
        section("Training", charts(*_training(runs))),
        section(
            "Settings that differ",
            table(["setting", *names], settings, look="texts")
            if settings
            else paragraph("None: the recipes are the same."),
        ),
        section("Environment that differs", _environment(runs)),
    ]
    return write_gallery(path, (), f"perpixel compare: {', '.join(names)}", sections=sections)


def print_comparison(runs: Sequence[Run]) -> None:
    """The metrics of all runs, and how many settings differ."""
    console = Console(width=None if Console().is_terminal else 160)
    shown = Table(box=None, padding=(0, 2, 0, 0))
    shown.add_column("per cent")
    for run in runs:
        shown.add_column(Text(run.name), justify="right", overflow="fold")
    for name, *cells in metric_rows(runs):
        texts = [cell.text for cell in cells if isinstance(cell, Cell)]
        pairs = zip(texts[1::2], texts[2::2], strict=True)
        both = [value if points == "–" else f"{value} ({points})" for value, points in pairs]
        shown.add_row(Text(str(name)), texts[0], *both)
    console.print(shown, highlight=False)
    count = len(setting_rows(runs))
    told = {0: "the recipes are the same", 1: "1 setting differs"}.get(count, f"{count} settings differ")
    console.print(told, highlight=False)


def _over_runs(runs: Sequence[Run], points: Callable[[Run], Sequence[Point]]) -> list[Line]:
    """A line a run, of the same colour in every chart, where it has the points."""
    return [Line(run.name, points(run)) for run in runs]


def _curves(runs: Sequence[Run]) -> list[str]:
    axes = Axis("recall, %", (0, 100)), Axis("precision, %", (0, 100))
    figures = []
    for kind, title in TITLES.items():
        for key, overlap in (("curve", ".50"), ("curve75", ".75")):

            def points(run: Run, kind: str = kind, key: str = key) -> list[Point]:
                curve = run.numbers.get("per_class", {}).get(kind, {}).get(key, ())
                return [(100 * x, 100 * y) for x, y in zip(RECALLS, curve, strict=False)]

            figures.append(line_chart(f"{title}, IoU {overlap}", _over_runs(runs, points), *axes))
    return figures


def _mistakes(runs: Sequence[Run]) -> list[str]:
    """A table a kind of result: the mistakes of each run and what mending them would bring."""
    tables = []
    for kind, title in TITLES.items():
        found = {run.name: run.numbers.get("mistakes", {}).get(kind) for run in runs}
        known = {name: mistakes for name, mistakes in found.items() if mistakes}
        if not known:
            continue
        heads = [head for name in known for head in (f"{name}: count", "gain")]
        rows: list[list[Cell | str]] = []
        for mistake in MISTAKES:
            row: list[Cell | str] = [mistake]
            for one in known.values():
                count, gain = one["counts"][mistake], one["gains"][mistake]
                row += [Cell(str(count), count), Cell(f"{100 * gain:.1f}", gain)]
            rows.append(row)
        scores = ", ".join(f"{name} {one['score']:.2f}" for name, one in known.items())
        says = f"{title}: counts from the score of the best F1 on ({scores}); gains in points of AP50."
        tables += [paragraph(says), table(["mistake", *heads], rows)]
    return tables


def _training(runs: Sequence[Run]) -> list[str]:
    """Validation, losses and learning rates over one another."""
    steps = Axis("step", (0, max((row["step"] for run in runs for row in run.log), default=1)))
    figures = []
    for name in dict.fromkeys(name for run in runs for name in metric_lines(run.log)):
        if name.rsplit("/", 1)[-1] in HEADLINES[:1] + HEADLINES[3:]:
            lines = _over_runs(runs, lambda run, name=name: metric_lines(run.log).get(name, []))
            figures.append(line_chart(name, lines, steps, Axis("%")))
    for name, title in (("loss", "Loss"), ("learning_rate", "Learning rate")):
        lines = _over_runs(runs, lambda run, name=name: [(row["step"], row[name]) for row in run.log if name in row])
        log = name == "loss" and wide([y for line in lines for _, y in line.points])
        figures.append(line_chart(title, lines, steps, Axis(title.lower(), log=log)))
    return figures


def _environment(runs: Sequence[Run]) -> str:
    known: list[tuple[str, Mapping[str, str]]] = [
        (run.name, run.numbers["environment"]) for run in runs if "environment" in run.numbers
    ]
    facts = dict.fromkeys(fact for _, environment in known for fact in environment)
    rows = [
        [fact, *(environment.get(fact, "–") for _, environment in known)]
        for fact in facts
        if len({environment.get(fact) for _, environment in known}) > 1
    ]
    return table(["", *(name for name, _ in known)], rows, look="texts") if rows else ""
