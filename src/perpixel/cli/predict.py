"""`perpixel predict`."""

import argparse
from pathlib import Path

from perpixel.cli.settings import add_device, chosen_device


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("checkpoint", help="a .safetensors file of perpixel")
    parser.add_argument("sources", nargs="+", help="pictures, folders, patterns, videos, or a camera's number")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions"), help="folder to write to (default: predictions)"
    )
    parser.add_argument("--score", type=float, default=0.5, help="smallest score kept (default: 0.5)")
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes annotated pictures, results.json and gallery.html."""
    from perpixel.engine.checkpoint import build_model, load_checkpoint
    from perpixel.engine.predict import Predictor, predict_to_folder

    device = chosen_device(arguments.device)
    checkpoint = load_checkpoint(arguments.checkpoint)
    predictor = Predictor(build_model(checkpoint), checkpoint.class_names, checkpoint.recipe.data.test, device)
    written = predict_to_folder(
        predictor, arguments.sources, arguments.out, arguments.score, category_ids=checkpoint.category_ids
    )
    print(f"{written.instances} objects in {written.photos} pictures: {written.results}")
    if written.gallery is not None:
        print(f"look at {written.gallery}")
    for sentence in written.refused:
        print(f"left out: {sentence}")
    return written.status
