"""`perpixel check`."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("data", help="a data file (my.yaml), COCO json, VOC folder, YOLO data.yaml or shapes:N")
    parser.add_argument("--images", help="folder of the images, where it cannot be found from the annotations")
    parser.add_argument(
        "--sheet", type=Path, default=Path("check.png"), help="picture sheet to write (default: check.png)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Validates every image and annotation and prints what there is."""
    from perpixel.data.check import check_and_print

    return check_and_print(arguments.data, images=arguments.images, sheet=arguments.sheet)
