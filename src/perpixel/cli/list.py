"""`perpixel list`."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("part", nargs="?", default="", help="only recipes whose name contains this")


def run(arguments: argparse.Namespace) -> int:
    """Prints every recipe with the first line of its docstring."""
    from rich.console import Console
    from rich.table import Table

    from perpixel.recipes import all_recipes

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, function in sorted(all_recipes().items()):
        if arguments.part in name:
            table.add_row(f"[bold]{name}[/bold]", (function.__doc__ or "").strip().splitlines()[0])
    Console(width=None if Console().is_terminal else 140).print(table)
    return 0
