"""Ours beside the paper's: a table of ablations on the terminal, as JSON, as Markdown and as a page."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as TerminalTable

from perpixel.config import to_dict
from perpixel.engine.ablation import Outcome, Table
from perpixel.engine.files import write_text
from perpixel.engine.gallery import write_gallery
from perpixel.engine.page import Cell, table
from perpixel.engine.recipe import Recipe

ALWAYS = ("box AP", "mask AP")
"""Columns shown wherever we measure them, whatever the paper gives."""

LESS_IS_BETTER = ("crowd MR-2",)


def metric_of(column: str) -> str:
    """Our name of a paper's column: "mask AP" and "AP" are ``segm/AP``, "box AP50" is ``bbox/AP50``; the others likewise."""
    kind, _, figure = column.rpartition(" ")
    ours = {
        "": "segm",
        "mask": "segm",
        "box": "bbox",
        "keypoint": "keypoints",
        "panoptic": "panoptic",
        "crowd": "crowd",
    }
    return f"{ours[kind]}/{figure}" if kind in ours else column


def columns_of(outcomes: list[Outcome]) -> list[str]:
    """Those of the paper in its order, after boxes and masks where we have measured them."""
    measured = {name for outcome in outcomes for name in outcome.metrics}
    given = list(dict.fromkeys(column for outcome in outcomes for column in outcome.row.paper))
    known = {metric_of(column) for column in given}
    return [c for c in ALWAYS if metric_of(c) in measured and metric_of(c) not in known] + given


def ours(outcome: Outcome, column: str) -> float | None:
    """Our figure in per cent; None where it was not measured, or the truth has no such object."""
    value = outcome.metrics.get(metric_of(column), -1.0)
    return None if value < 0 else 100 * value


def same_order(outcomes: list[Outcome], column: str) -> tuple[int, int]:
    """Of the pairs of finished rows that the paper's column tells apart: how many stand in the same order here, and all."""
    rows = [(o.row.paper[column], ours(o, column)) for o in outcomes if column in o.row.paper]
    pairs = [
        (first[0] - second[0], first[1] - second[1])
        for first, second in combinations(rows, 2)
        if first[1] is not None and second[1] is not None and first[0] != second[0]
    ]
    return sum(theirs * mine > 0 for theirs, mine in pairs), len(pairs)


class Report:
    """Shows outcomes on the terminal and writes ``results.json``, ``table.md`` and ``table.html`` into the runs' folder.

    Args:
        table: what is compared.
        recipe: what the rows change.
        out: the folder.
    """

    def __init__(self, table: Table, recipe: Recipe, out: Path) -> None:
        self.table, self.recipe, self.out = table, recipe, out

    def __call__(self, outcomes: list[Outcome]) -> None:
        """Shows and writes what is known so far; nothing where no row has begun."""
        if not any(outcome.metrics or outcome.failure for outcome in outcomes):
            return
        self.out.mkdir(parents=True, exist_ok=True)
        columns = columns_of(outcomes)
        self._print(outcomes, columns)
        write_text(self.out / "results.json", json.dumps(self._document(outcomes), indent=1))
        write_text(self.out / "table.md", self._markdown(outcomes, columns))
        self._write_page(outcomes, columns)

    def _notes(self, outcomes: list[Outcome]) -> list[str]:
        data, training = self.recipe.data, self.recipe.training
        notes = [
            f"paper: {self.table.source}",
            f"ours: {self.recipe.name}, {training.steps} steps of {training.batch_size} images, seed {training.seed}, "
            f"trained on {data.train}, measured on {data.val}",
        ]
        for column in columns_of(outcomes):
            same, pairs = same_order(outcomes, column)
            if pairs:
                notes.append(f"{column}: {same} of {pairs} pairs of rows stand in the paper's order")
                break
        return notes + [f"{o.row.name}: {o.failure}" for o in outcomes if o.failure]

    def _cells(self, outcome: Outcome, column: str) -> tuple[str, str]:
        """Ours and the paper's."""
        mine, theirs = ours(outcome, column), outcome.row.paper.get(column)
        state = "diverged" if outcome.failure else "-"
        return state if mine is None else f"{mine:.1f}", "-" if theirs is None else f"{theirs:.1f}"

    def _print(self, outcomes: list[Outcome], columns: list[str]) -> None:
        shown = TerminalTable(box=None, padding=(0, 2, 0, 0), title=self.table.name, title_justify="left")
        shown.add_column("row")
        for column in columns:
            shown.add_column(f"{column}\nours", justify="right", style="bold")
            shown.add_column("\npaper", justify="right", style="dim")
        for outcome in outcomes:
            shown.add_row(outcome.row.name, *(cell for c in columns for cell in self._cells(outcome, c)))
        console = Console(width=None if Console().is_terminal else 160, markup=False, emoji=False)
        console.print(shown)
        for note in self._notes(outcomes):
            console.print(note, markup=False, highlight=False, soft_wrap=True)

    def _document(self, outcomes: list[Outcome]) -> dict[str, Any]:
        return {
            "table": self.table.name,
            "source": self.table.source,
            "recipe": to_dict(self.recipe),
            "rows": [
                {
                    "name": o.row.name,
                    "settings": list(o.row.settings),
                    "paper": o.row.paper,
                    "ours": o.metrics,
                    "failure": o.failure,
                }
                for o in outcomes
            ],
        }

    def _markdown(self, outcomes: list[Outcome], columns: list[str]) -> str:
        heads = [head for column in columns for head in (f"{column}, ours", f"{column}, paper")]
        lines = [f"| row | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
        for outcome in outcomes:
            cells = [cell for column in columns for cell in self._cells(outcome, column)]
            lines.append(f"| {outcome.row.name} | {' | '.join(cells)} |")
        notes = [f"* {note}" for note in self._notes(outcomes)]
        return "\n".join([f"# {self.table.name}", "", *lines, "", *notes, ""])

    def _write_page(self, outcomes: list[Outcome], columns: list[str]) -> None:
        def cells(outcome: Outcome, column: str) -> list[Cell]:
            mine, theirs = self._cells(outcome, column)
            value, best = ours(outcome, column), min if column in LESS_IS_BETTER else max
            known = [figure for other in outcomes if (figure := ours(other, column)) is not None]
            look = "good" if value is not None and value == best(known) else ""
            return [Cell(mine, value, look=look), Cell(theirs, outcome.row.paper.get(column))]

        headings = ["row", *(head for c in columns for head in (f"{c}, ours", f"{c}, paper")), "settings"]
        rows = [
            [o.row.name, *(cell for c in columns for cell in cells(o, c)), " ".join(o.row.settings)] for o in outcomes
        ]
        notes = self._notes(outcomes)
        page = self.out / "table.html"
        write_gallery(page, (), self.table.name, notes=notes, sections=[table(headings, rows, "sentences")])
