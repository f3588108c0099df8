"""`perpixel convert`."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "source", help="a .pth or .safetensors checkpoint of another library, or an .npz of MEInst's components"
    )
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--layout",
        choices=("adelaidet", "detectron2", "fcos_original", "nas_fcos", "torchvision", "mmdetection"),
        help="whose checkpoint it is; told from its names by default",
    )
    parser.add_argument(
        "--classes", help="a text file with a class name a line; COCO's names for 80 or 91 classes by default"
    )
    about = "settings that the file does not tell, such as model.head.quality=iou"
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=about)


def run(arguments: argparse.Namespace) -> int:
    """Converts, says which names were not used, and writes a checkpoint of ours."""
    from perpixel.engine.convert.file import convert_file

    for line in convert_file(
        arguments.source, arguments.target, arguments.layout, arguments.classes, arguments.settings
    ):
        print(line)
    return 0
