"""`perpixel train`."""

import argparse
from pathlib import Path

from perpixel.cli.settings import add_device, add_settings, add_skip_bad, with_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("recipe", help="a name from `perpixel list`")
    add_settings(parser)
    add_skip_bad(parser)
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/RECIPE, or runs/RECIPE-2 and so on)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder where it stopped")
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Trains and names the checkpoint."""
    from perpixel.engine.runs import new_run_folder
    from perpixel.engine.train import train
    from perpixel.recipes import get_recipe

    recipe = with_settings(get_recipe(arguments.recipe), arguments.settings)
    out = arguments.out or (Path("runs") / recipe.name if arguments.resume else new_run_folder(recipe.name))
    train(recipe, out, resume=arguments.resume, device=arguments.device)
    return 0
