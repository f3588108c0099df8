"""A server of models that see bright squares, for the tests of the API and of the page."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from engine_fakes import BrightSquare, photo
from perpixel.data.settings import TestSize as Size
from perpixel.engine.predict import Predictor
from perpixel.serve.guard import Guard
from perpixel.serve.limits import Limits
from perpixel.serve.run import listen, server_of
from perpixel.structures import Batch, Detections, Segments, Stuff

BOX = (20, 16, 60, 56)
OUTLINE = [
    (21, 16),
    (59, 16),
    (59, 17),
    (60, 17),
    (60, 55),
    (59, 55),
    (59, 56),
    (21, 56),
    (21, 55),
    (20, 55),
    (20, 17),
    (21, 17),
]
"""Of its mask, given as 9x9 ones in the box and read bilinearly, 0 beyond: a pixel at an edge lies 0.5 * 9 / 40 = 0.1125 cells
inside, 0.3875 before the first cell's centre, where 0.6125 is left; at a corner the square of that, 0.375, is below 1/2."""
AREA = 40 * 40 - 4
NAME = "<b>square</b>"
"""A class whose name would be markup."""


class Halves(BrightSquare):
    """A panoptic model: the bright square is an object, the rest is sky."""

    def predict(self, batch: Batch) -> list[Detections]:
        out = []
        for found, (height, width) in zip(super().predict(batch), batch.originals, strict=True):
            owner = torch.ones(height, width, dtype=torch.long)
            x1, y1, x2, y2 = BOX
            owner[y1:y2, x1:x2] = 0
            segments = Segments(owner, torch.tensor([0, 1]), torch.tensor([0.9, 1.0]), torch.tensor([False, False]))
            out.append(Detections(found.boxes, found.scores, found.labels, found.size, found.masks, None, segments))
        return out


def predictors() -> dict[str, Predictor]:
    """Masks and a keypoint; boxes alone; segments. Category 7, sky 9."""
    size = Size(90, 200)
    return {
        "masks": Predictor(
            BrightSquare(masks=True, keypoints=True), [NAME], size, "cpu", category_ids=(7,), keypoint_names=("middle",)
        ),
        "boxes": Predictor(BrightSquare(), [NAME], size, "cpu", category_ids=(7,)),
        "panoptic": Predictor(Halves(masks=True), [NAME], size, "cpu", category_ids=(7,), stuff=Stuff(("sky",), (9,))),
    }


def picture(box: tuple[int, int, int, int] | None = BOX, size: tuple[int, int] = (90, 120)) -> bytes:
    """A PNG of a black photo with a white box."""
    out = BytesIO()
    Image.fromarray(photo(size, box)).save(out, "PNG")
    return out.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


@contextmanager
def running(app: Guard, limits: Limits | None = None) -> Iterator[str]:
    """The application on a free port of this machine; gives its address."""
    with listen("127.0.0.1", 0) as sock:
        server = server_of(app, limits or Limits())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
