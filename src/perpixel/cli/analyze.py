"""`perpixel analyze`."""

import argparse

from perpixel.cli.settings import add_settings, add_skip_bad, with_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("recipe", help="a name from `perpixel list`; its head and test size are analysed")
    add_settings(parser)
    add_skip_bad(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints best possible recall and ambiguity (thesis 002, tables 3.1 and 3.2) for the annotations of data.train."""
    from rich.console import Console
    from rich.table import Table

    from perpixel.engine.analyze import analyze
    from perpixel.recipes import get_recipe

    recipe = with_settings(get_recipe(arguments.recipe), arguments.settings)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for i, heading in enumerate(
        ("assignment", "objects", "best possible recall", "one object", "two", "three or more")
    ):
        table.add_column(heading, justify="right" if i else "left")
    for row in analyze(recipe):
        shares = [f"{100 * share:.2f} %" for share in row.ambiguity] if row.ambiguity else ["-"] * 3
        table.add_row(row.name, str(row.objects), f"{100 * row.best_possible_recall:.2f} %", *shares)
    Console(width=None if Console().is_terminal else 140).print(table)
    print(
        "one object, two, three or more: shares of the positive locations by how many objects they could be trained on"
    )
    return 0
