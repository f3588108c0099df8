"""A paper's table of ablations as data, and the run that trains its rows and puts ours beside the paper's."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from perpixel.config import override
from perpixel.engine.checkpoint import load_checkpoint
from perpixel.engine.files import write_text
from perpixel.engine.loop import DivergedError
from perpixel.engine.recipe import Recipe
from perpixel.engine.runs import RunFolder
from perpixel.engine.train import train
from perpixel.errors import InputError


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: what the row varies, in a few words; one of its kind in the table.
        settings: ``dotted.path=value`` applied to the table's recipe. The row of the paper's own choice names its setting
            too, so that the table means the same on a recipe with other defaults.
        paper: the paper's figures by column, in per cent: "mask AP", "box AP", "keypoint AP", "AP50", "AP75", "APs", "APm", "APl"
            (of masks where nothing is said, "box AP50" of boxes), "crowd AP", "crowd MR-2", "crowd JI"; a column that we do not
            measure has any other name. Empty where it gives none.
    """

    name: str
    settings: tuple[str, ...] = ()
    paper: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of ablations: a recipe and what each row changes in it.

    A public constant of this type in a module of `perpixel.recipes` is a table that `perpixel ablate` knows.

    Attributes:
        name: what the command line calls it, such as "condinst_5.1": method and number of the table.
        source: paper, table, and the data its figures were measured on.
        recipe: name of the recipe that the rows change.
        rows: in the paper's order.
    """

    name: str
    source: str
    recipe: str
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"table {self.name} has two rows of one name")


@dataclass(frozen=True)
class Outcome:
    """What became of a row.

    Attributes:
        row: of the table.
        metrics: of the last evaluation, such as ``segm/AP``, in fractions; empty where the row is not finished.
        failure: why its training ended early; None where it did not.
    """

    row: Row
    metrics: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


def run_table(
    table: Table,
    recipe: Recipe,
    out: Path,
    *,
    rows: Sequence[str] = (),
    device: torch.device | str | None = None,
    report: Callable[[list[Outcome]], None],
) -> bool:
    """Trains rows of a table one after another, each from the same seed on the same data.

    A row that is finished in `out` is read, one that was interrupted goes on. A row whose losses stop being numbers is noted
    and the next one begins.

    Args:
        table: what is compared.
        recipe: what the rows change: the table's own, or another of the same method.
        out: folder of the runs, one folder a row.
        rows: names or numbers (from 1) of rows; none means all.
        device: where to compute; None takes the GPU if there is one.
        report: called with the outcomes of the whole table at first and after each row.

    Returns:
        Whether all asked rows were gone through; False after Ctrl-C.

    Raises:
        InputError: settings that do not fit the recipe, rows that do not exist, or no validation split.
    """
    if recipe.data.val is None:
        raise InputError("data.val is not set: name the annotations that the rows are compared on")
    chosen = choose_rows(table, rows)
    recipes = {
        row.name: replace(override(recipe, row.settings), name=f"{table.name}: {row.name}") for row in table.rows
    }
    folders = {row.name: row_folder(table, row, out) for row in table.rows}
    for row in chosen:
        RunFolder(folders[row.name]).check(recipes[row.name], resume=_begun(folders[row.name]))

    def outcomes() -> list[Outcome]:
        return [_outcome(row, recipes[row.name], folders[row.name]) for row in table.rows]

    report(outcomes())
    for row in chosen:
        folder = folders[row.name]
        if _outcome(row, recipes[row.name], folder).metrics:
            continue
        print(f"{table.name}: {row.name}", flush=True)
        failed = folder / "failure.txt"
        failed.unlink(missing_ok=True)
        try:
            result = train(recipes[row.name], folder, resume=_begun(folder), device=device)
        except DivergedError as error:
            write_text(failed, str(error))
        else:
            if result.interrupted:
                return False
        report(outcomes())
    return True


def choose_rows(table: Table, names: Sequence[str]) -> list[Row]:
    """The rows of those names or numbers (from 1), in the table's order; all for none.

    Raises:
        InputError: there is no such row; lists those there are.
    """
    numbered = {str(number): row for number, row in enumerate(table.rows, start=1)}
    known = {row.name: row for row in table.rows}
    for name in names:
        if name not in known and name not in numbered:
            listed = ", ".join(f"{number} ({row.name})" for number, row in numbered.items())
            raise InputError(f"{name!r} is not a row of {table.name}; it has {listed}")
    wanted = {(known.get(name) or numbered[name]).name for name in names}
    return [row for row in table.rows if not names or row.name in wanted]


def row_folder(table: Table, row: Row, out: Path) -> Path:
    """Where a row's run lies."""
    number = table.rows.index(row) + 1
    return out / f"{number}_{re.sub(r'[^a-z0-9]+', '_', row.name.lower()).strip('_')}"


def _begun(folder: Path) -> bool:
    return RunFolder(folder).recipe.is_file()


def _outcome(row: Row, recipe: Recipe, folder: Path) -> Outcome:
    last, failed = RunFolder(folder).last, folder / "failure.txt"
    if failed.is_file():
        return Outcome(row, failure=failed.read_text(encoding="utf-8"))
    if not last.is_file():
        return Outcome(row)
    checkpoint = load_checkpoint(last)
    return Outcome(row, checkpoint.metrics if checkpoint.step == recipe.training.steps else {})
