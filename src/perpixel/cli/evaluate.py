"""`perpixel evaluate`."""

import argparse
from pathlib import Path

from perpixel.cli.settings import add_device, add_settings, add_skip_bad, chosen_device, with_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "checkpoint", help="a .safetensors file of perpixel, a name of `perpixel list --weights`, or hf:OWNER/NAME"
    )
    add_settings(parser)
    add_skip_bad(parser)
    parser.add_argument(
        "--out", type=Path, help="folder for report.html, metrics.json and results.json (default: print only)"
    )
    parser.add_argument("--max-detections", type=int, help="best results counted an image (default: COCO's 100)")
    parser.add_argument("--batch-size", type=int, default=1, help="images computed at once (default: 1)")
    parser.add_argument("--examples", type=int, default=40, help="images shown in the report (default: 40)")
    parser.add_argument(
        "--augmented",
        nargs="*",
        type=int,
        metavar="SHORT_SIDE",
        help="test-time augmentation: every image and its mirror image at these short sides (default: 400 500 ... 1200)",
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the metrics of the validation split named by data.val, the checkpoint's own by default."""
    from perpixel.engine.augmented import Views
    from perpixel.engine.report import evaluate_checkpoint

    views = None
    if arguments.augmented is not None:
        views = Views(short_sides=tuple(arguments.augmented)) if arguments.augmented else Views()
    evaluate_checkpoint(
        arguments.checkpoint,
        lambda recipe: with_settings(recipe, arguments.settings),
        out=arguments.out,
        device=chosen_device(arguments.device),
        max_detections=arguments.max_detections,
        batch_size=arguments.batch_size,
        examples=arguments.examples,
        views=views,
    )
    return 0
