"""`perpixel search`."""

import argparse
from pathlib import Path

from perpixel.cli.settings import add_settings, with_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "name",
        help="what to search: dynamic_cell, decoder, nas_fcos, or toy; `show` draws the search in the folder that follows",
    )
    add_settings(parser)
    parser.add_argument(
        "--out", type=Path, help="folder of the search (default: runs/search_NAME, or runs/search_NAME-2 and so on)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the search in that folder where it stopped")
    parser.add_argument(
        "--baseline", type=Path, help="with show: another search to compare with, such as random search"
    )
    parser.add_argument("--settings", dest="list", action="store_true", help="print the settings and search nothing")


def run(arguments: argparse.Namespace) -> int:
    """Searches, and names the page to look at."""
    from perpixel.engine.runs import new_run_folder
    from perpixel.errors import InputError
    from perpixel.search.runner import run_search
    from perpixel.search.spaces import get_search

    if arguments.name == "show":
        return _show(arguments)
    if arguments.baseline is not None:
        raise InputError("--baseline belongs to `perpixel search show FOLDER`")
    search = with_settings(get_search(arguments.name)(), arguments.settings)
    if arguments.list:
        return _print_settings(search)
    name = f"search_{arguments.name}"
    out = arguments.out or (Path("runs") / name if arguments.resume else new_run_folder(name))
    state = run_search(search, out, resume=arguments.resume)
    if state.learned < search.trials:
        print("stopped; --resume goes on from here")
        return 130
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from perpixel.errors import InputError
    from perpixel.search.runner import show_run

    if len(arguments.settings) != 1:
        raise InputError("`perpixel search show` takes the folder of one search")
    print(f"look at {show_run(arguments.settings[0], arguments.baseline)}")
    return 0


def _print_settings(search: object) -> int:
    import yaml

    from perpixel.config import to_dict

    print(yaml.safe_dump(to_dict(search), sort_keys=False, default_flow_style=None, width=110), end="")
    return 0
