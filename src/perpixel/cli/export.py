"""`perpixel export`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perpixel.cli.settings import chosen_device, with_settings

if TYPE_CHECKING:
    from perpixel.engine.checkpoint import Checkpoint


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "checkpoint",
        help="a .safetensors file of perpixel, a name of `perpixel list --weights`, hf:OWNER/NAME; or another recipe, with fresh "
        "weights: to measure time",
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings, such as model.selection.keep=20")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="the file to write: .onnx, .xml (OpenVINO, weights in a .bin file beside it) or .pt2 (AOTInductor)",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="the only input the file takes (default: any height and width)",
    )
    parser.add_argument(
        "--int8",
        type=Path,
        metavar="PHOTOS",
        help="compute convolutions in 8 bits, calibrated on the photos of this folder (.onnx, .xml)",
    )
    parser.add_argument(
        "--weights",
        choices=("published", "fresh"),
        default="published",
        help="of a recipe that has published ones (default: published); fresh ones are good for measuring time alone",
    )
    parser.add_argument("--device", default="cpu", help="what a .pt2 file is compiled for (default: cpu)")


def run(arguments: argparse.Namespace) -> int:
    """Writes the file, and says how an int8 file agrees with a float32 one."""
    from perpixel.engine.checkpoint import build_model
    from perpixel.engine.export import export_detector
    from perpixel.engine.export_int8 import export_int8
    from perpixel.engine.exported import facts_of
    from perpixel.errors import InputError

    if arguments.size is not None and min(arguments.size) < 32:
        raise InputError("--size: height and width are at least 32 pixels")
    checkpoint = source_of(arguments.checkpoint, arguments.settings, arguments.weights == "fresh")
    model = build_model(checkpoint)
    facts = facts_of(checkpoint, None if arguments.size is None else tuple(arguments.size))
    print("tracing takes a minute or more", flush=True)
    if arguments.int8 is not None:
        print(export_int8(model, facts, arguments.out, arguments.int8))
    else:
        export_detector(model, facts, arguments.out, chosen_device(arguments.device))
    print(f"{arguments.out}: perpixel predict {arguments.out} PHOTOS")
    return 0


def source_of(source: str, settings: Sequence[str], fresh: bool = False) -> "Checkpoint":
    """The checkpoint of that name, or one made of a recipe's fresh weights for 80 classes; with these settings.

    Args:
        source: a file, a name of weights, or a recipe.
        settings: changes to the recipe.
        fresh: whether a recipe gets fresh weights even where there are published ones.
    """
    from dataclasses import replace

    from perpixel.engine.checkpoint import Checkpoint
    from perpixel.engine.weights import is_named, open_checkpoint
    from perpixel.nn.backbones import without_pretrained
    from perpixel.recipes import get_recipe
    from perpixel.structures import Stuff

    if source.endswith(".safetensors") or Path(source).exists() or (is_named(source) and not fresh):
        checkpoint = open_checkpoint(source)
        return replace(checkpoint, recipe=with_settings(checkpoint.recipe, settings))
    recipe = with_settings(get_recipe(source), settings)
    names = tuple(f"class {number}" for number in range(1, 81))
    stuff = Stuff(tuple(f"stuff {number}" for number in range(1, 54)), tuple(range(81, 134)))
    weights = without_pretrained(recipe.model).build(len(names), len(stuff)).state_dict()
    print(f"{source} is a recipe: the weights are fresh, the file is good for measuring time alone")
    return Checkpoint(Path(source), recipe, names, tuple(range(1, 81)), weights, stuff=stuff)
