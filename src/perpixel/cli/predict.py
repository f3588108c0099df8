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
    parser.add_argument("sources", nargs="*", help="pictures, folders, patterns, videos, or a camera's number")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("predictions"),
        help="folder to write to (default: predictions), or the .mp4 to make of one video",
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
    parser.add_argument(
        "--track",
        action="store_true",
        help="number the objects of a video, the same in every frame; folders are taken for videos, as with --video",
    )
    parser.add_argument(
        "--frames", action="store_true", help="write a picture of each frame of a video, in place of a video"
    )
    parser.add_argument(
        "--webcam",
        nargs="?",
        type=int,
        const=0,
        metavar="NUMBER",
        help="show what a camera sees in a window, in place of writing files (default: camera 0)",
    )
    add_device(parser)
    add_fast(parser)


def run(arguments: argparse.Namespace) -> int:
    """Writes annotated pictures, results.json and gallery.html."""
    from perpixel.engine.allocator import keep_freed_memory
    from perpixel.engine.load import load
    from perpixel.engine.prediction_folder import predict_to_folder
    from perpixel.engine.sources import as_video
    from perpixel.engine.track import TrackSettings
    from perpixel.engine.video import VideoPredictor
    from perpixel.engine.visualize import Style
    from perpixel.errors import InputError

    if (arguments.webcam is None) == (not arguments.sources):
        raise InputError("name pictures, folders or videos to predict on, or a camera to look through with --webcam")
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
    track = TrackSettings.for_score(arguments.score) if arguments.track else None
    if arguments.webcam is not None:
        from perpixel.engine.window import show_camera

        print(f"{show_camera(predictor, arguments.webcam, arguments.score, style, track)} frames seen")
        return 0
    sources = [as_video(source) if arguments.video or track else source for source in arguments.sources]
    if isinstance(predictor, VideoPredictor):
        predictor.compare = arguments.video
    written = predict_to_folder(
        predictor, sources, arguments.out, arguments.score, style=style, track=track, frames_apart=arguments.frames
    )
    print(written.says)
    if written.panoptic is not None:
        print(f"segments: {written.panoptic}")
    if isinstance(predictor, VideoPredictor) and arguments.video:
        print(f"network: {predictor.pace}")
    if written.gallery is not None:
        print(f"look at {written.gallery}")
    for sentence in written.refused:
        print(f"left out: {sentence}")
    return written.status
