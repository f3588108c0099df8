"""`perpixel predict`."""

import argparse
from pathlib import Path

from perpixel.cli.settings import add_device, add_fast, chosen_device


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "checkpoint", help="a .safetensors file of perpixel, or an .onnx, .xml or .pt2 file of `perpixel export`"
    )
    parser.add_argument("sources", nargs="+", help="pictures, folders, patterns, videos, or a camera's number")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions"), help="folder to write to (default: predictions)"
    )
    parser.add_argument("--score", type=float, default=0.5, help="smallest score kept (default: 0.5)")
    parser.add_argument(
        "--pose", action="store_true", help="draw the skeletons of a keypoint model alone, without boxes and labels"
    )
    add_device(parser)
    add_fast(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes annotated pictures, results.json and gallery.html."""
    from perpixel.engine.allocator import keep_freed_memory
    from perpixel.engine.load import load
    from perpixel.engine.predict import predict_to_folder
    from perpixel.engine.visualize import Style
    from perpixel.errors import InputError

    device = None if arguments.device is None else chosen_device(arguments.device)
    keep_freed_memory()
    predictor = load(arguments.checkpoint, device, arguments.fast)
    if arguments.pose and not predictor.keypoint_names:
        raise InputError(
            f"--pose draws skeletons, and {arguments.checkpoint} predicts no keypoints: leave the option out, or take a model "
            "of DirectPose"
        )
    print(f"network: {predictor.speed}")
    style = Style(boxes=False, labels=False) if arguments.pose else None
    written = predict_to_folder(predictor, arguments.sources, arguments.out, arguments.score, style=style)
    print(f"{written.instances} objects in {written.photos} pictures: {written.results}")
    if written.panoptic is not None:
        print(f"segments: {written.panoptic}")
    if written.gallery is not None:
        print(f"look at {written.gallery}")
    for sentence in written.refused:
        print(f"left out: {sentence}")
    return written.status
