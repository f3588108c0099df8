"""A window that shows what a model finds in a camera's picture, as it comes."""

import time

import numpy as np

from perpixel.engine.predict import AnyPredictor
from perpixel.engine.sources import opencv
from perpixel.engine.track import TrackSettings, tracked
from perpixel.engine.visualize import Style
from perpixel.errors import InputError

_ENDS = (27, ord("q"))
"""Keys that close the window: Escape and q."""


def show_camera(
    predictor: AnyPredictor, number: int, score: float, style: Style | None = None, track: TrackSettings | None = None
) -> int:
    """Shows a camera's frames with what is found in them, until q, Escape or the end of the camera; how many there were.

    Args:
        predictor: the model.
        number: of the camera.
        score: smallest score shown.
        style: how to draw.
        track: number the objects, the same in every frame.

    Raises:
        InputError: no such camera, or an OpenCV without windows.
    """
    cv2 = opencv()
    title = "perpixel: q ends"
    try:
        cv2.namedWindow(title)
    except cv2.error as error:
        raise InputError(
            "this OpenCV cannot open windows (opencv-python-headless): use the camera in the page of `perpixel serve`, or "
            "install opencv-python in its place"
        ) from error
    stream = predictor.stream(number, score if track is None else min(score, track.low))
    frames, told = 0, time.monotonic()
    try:
        for found in stream if track is None else tracked(stream, track, score):
            frames += 1
            cv2.imshow(title, np.ascontiguousarray(np.asarray(found.plot(style))[:, :, ::-1]))
            now = time.monotonic()
            cv2.setWindowTitle(title, f"{title}, {1 / max(now - told, 1e-6):.1f} frames/s")
            told = now
            if cv2.waitKey(1) & 0xFF in _ENDS:
                break
    finally:
        cv2.destroyAllWindows()
    return frames
