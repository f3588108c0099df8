"""`perpixel ablate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from perpixel.cli.settings import add_device, add_settings, add_skip_bad, with_settings

if TYPE_CHECKING:
    from perpixel.engine.ablation import Table


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("table", nargs="?", help="a table, such as condinst_5.1; --list shows all")
    add_settings(parser)
    add_skip_bad(parser)
    parser.add_argument("--list", action="store_true", help="print all tables, or the rows of the named one")
    parser.add_argument("--recipe", help="vary this recipe of the same method and not the table's own")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows, by name or number")
    parser.add_argument(
        "--out", type=Path, help="folder of the runs; runs/TABLE by default. Finished rows are not run again"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Trains and evaluates the rows and prints ours beside the paper's."""
    from perpixel.engine.ablation import run_table
    from perpixel.engine.ablation_report import Report
    from perpixel.errors import InputError
    from perpixel.recipes import get_recipe, get_table

    if arguments.table is None:
        if not arguments.list:
            raise InputError("name a table; `perpixel ablate --list` shows all")
        return _print_tables()
    table = get_table(arguments.table)
    if arguments.list:
        return _print_rows(table)
    recipe = with_settings(get_recipe(arguments.recipe or table.recipe), arguments.settings)
    out = arguments.out or Path("runs") / table.name
    report = Report(table, recipe, out)
    finished = run_table(table, recipe, out, rows=arguments.rows or (), device=arguments.device, report=report)
    if not finished:
        print("stopped; the same command goes on from here")
        return 130
    print(f"look at {out / 'table.html'}")
    return 0


def _print_tables() -> int:
    from rich.console import Console
    from rich.table import Table as TerminalTable

    from perpixel.recipes import all_tables

    shown = TerminalTable(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, table in all_tables().items():
        shown.add_row(f"[bold]{name}[/bold]", f"{len(table.rows)} rows", table.source)
    Console(width=None if Console().is_terminal else 140).print(shown)
    return 0


def _print_rows(table: "Table") -> int:
    print(f"{table.name}: {table.source}; rows change the recipe {table.recipe}")
    for number, row in enumerate(table.rows, start=1):
        figures = ", ".join(f"{column} {value:g}" for column, value in row.paper.items())
        print(f"{number}  {row.name}: {' '.join(row.settings) or 'as it is'}; paper: {figures or 'no figure'}")
    return 0
