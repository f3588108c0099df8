"""`perpixel list`."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("part", nargs="?", default="", help="only recipes whose name contains this")
    parser.add_argument(
        "--weights",
        action="store_true",
        help="published weights in place of recipes: their names, figures, source, licence",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints every recipe with the first line of its docstring, or all published weights."""
    if arguments.weights:
        return _weights(arguments.part)
    from rich.console import Console
    from rich.table import Table

    from perpixel.recipes import all_recipes

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, function in sorted(all_recipes().items()):
        if arguments.part in name:
            table.add_row(f"[bold]{name}[/bold]", (function.__doc__ or "").strip().splitlines()[0])
    Console(width=None if Console().is_terminal else 140).print(table)
    return 0


def _weights(part: str) -> int:
    from rich.console import Console
    from rich.table import Table

    from perpixel.engine.weights_cache import Place
    from perpixel.engine.weights_table import PUBLISHED

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    for heading in ("published figures", "licence", "address", "here"):
        table.add_column(heading, overflow="fold")
    for name, one in sorted(PUBLISHED.items()):
        if part in name:
            figures = ", ".join(f"{what} {value}" for what, value in one.reported.items())
            here = "yes" if Place(one).converted.is_file() else ""
            licence = f"{one.publisher.name}: {one.publisher.licence}"
            table.add_row(f"[bold]{name}[/bold]", figures, licence, one.address.removeprefix("https://"), here)
    Console(width=None if Console().is_terminal else 220).print(table)
    print("figures: their publishers', on COCO val2017 unless they say test-dev; not measured by us")
    return 0
