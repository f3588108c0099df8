"""`perpixel compare`."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of `perpixel train`, or of `perpixel evaluate --out`"
    )
    parser.add_argument("--out", type=Path, default=Path("compare.html"), help="the page (default: compare.html)")


def run(arguments: argparse.Namespace) -> int:
    """Prints the metrics of the runs and writes the page."""
    from perpixel.engine.compare import print_comparison, read_runs, write_comparison
    from perpixel.errors import InputError

    if len(arguments.runs) < 2:
        raise InputError("compare needs two runs or more: name their folders, the one to compare with first")
    runs = read_runs(arguments.runs)
    print_comparison(runs)
    print(f"look at {write_comparison(arguments.out, runs)}")
    return 0
