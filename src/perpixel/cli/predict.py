"""`perpixel predict`."""

import argparse
from pathlib import Path

from perpixel.cli.settings import add_device, add_fast, chosen_device


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "checkpoint",
        help="a .safetensors file of perpixel, an .onnx, .xml or .pt2 file of `perpixel export`, a name of "
        "`perpixel list --weights`, or hf:OWNER/NAME",
    )
    parser.add_argument("sources", nargs="+", help="pictures, folders, patterns, videos, or a camera's number")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions"), help="folder to write to (default: predictions)"
    )
    parser.add_argument("--score", type=float, default=0.5, help="smallest score kept (default: 0.5)")
    parser.add_argument(
        "--pose", action="store_true", help="draw the skeletons of a keypoint model alone, without boxes and labels"
    )
    parser.add_argument(
        "--video",
        action="store_true",
        help="take each folder's pictures for the frames of one video, and tell the time a frame of a model that follows videos",
    )
    add_device(parser)
    add_fast(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes annotated pictures, results.json and gallery.html."""
    from perpixel.engine.allocator import keep_freed_memory
    from perpixel.engine.load import load
    from perpixel.engine.predict import predict_to_folder
    from perpixel.engine.sources import as_video
    from perpixel.engine.video import VideoPredictor
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
    sources = [as_video(source) if arguments.video else source for source in arguments.sources]
    if isinstance(predictor, VideoPredictor):
        predictor.compare = arguments.video
    written = predict_to_folder(predictor, sources, arguments.out, arguments.score, style=style)
    print(f"{written.instances} objects in {written.photos} pictures: {written.results}")
    if written.panoptic is not None:
        print(f"segments: {written.panoptic}")
    if isinstance(predictor, VideoPredictor) and arguments.video:
        print(f"network: {predictor.pace}")
    if written.gallery is not None:
        print(f"look at {written.gallery}")
    for sentence in written.refused:
        print(f"left out: {sentence}")
    return written.status
