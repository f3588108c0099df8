"""`perpixel demo`."""

import argparse
from pathlib import Path

from perpixel.cli.settings import add_device, add_settings, chosen_device, with_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_settings(parser)
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/demo, or runs/demo-2 and so on)")
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Trains on synthetic shapes, evaluates, predicts, and names the page to look at."""
    from perpixel.data.shapes import ShapesDataset
    from perpixel.engine.load import load
    from perpixel.engine.prediction_folder import predict_to_folder
    from perpixel.engine.report import evaluate_checkpoint
    from perpixel.engine.runs import new_run_folder
    from perpixel.engine.train import train
    from perpixel.recipes import get_recipe

    device = chosen_device(arguments.device)
    recipe = with_settings(get_recipe("fcos_shapes"), arguments.settings)
    out = arguments.out or new_run_folder("demo")
    print("1/3  training a small FCOS on synthetic shapes (about two minutes on two processor cores)")
    train(recipe, out, device=device)
    best = out / "best.safetensors"
    print("2/3  evaluating it on 100 shapes it has never seen")
    evaluate_checkpoint(best, lambda stored: stored, out=out / "evaluation", device=device)
    print("3/3  predicting on photos, as you would on yours")
    photos = out / "photos"
    ShapesDataset(6, seed=3).write_coco(photos)
    predict_to_folder(load(best, device), sorted(photos.glob("images/*")), out / "predictions", progress=False)
    print(f"\nlook at   {out / 'evaluation' / 'report.html'}")
    print(f"pictures  {out / 'predictions'}")
    print(f"the model {best}:  perpixel predict {best} YOUR_PHOTOS")
    return 0
