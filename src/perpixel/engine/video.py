"""A model that follows videos at work: each frame is seen with what the one before it left, and timed."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from perpixel.engine.instances import Instances
from perpixel.engine.predict import Predictor
from perpixel.engine.sources import Frame
from perpixel.models.heads import VideoModel
from perpixel.structures import Batch, Detections

EVERY = 10
"""Where times are compared, each so-manieth frame is computed as a first frame too."""


@dataclass
class Pace:
    """Seconds of the network a frame, the photo's preparation and drawing not counted.

    Attributes:
        alone: of frames computed as first frames, with nothing remembered.
        following: of later frames.
    """

    alone: list[float] = field(default_factory=list)
    following: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """Medians in words; the very first call warms up and counts nowhere."""
        parts = [("a frame that follows another", self.following), ("a frame alone", self.alone[1:])]
        return ", ".join(f"{1000 * median(times):.1f} ms {name} ({len(times)})" for name, times in parts if times)


class VideoPredictor(Predictor):
    """A `Predictor` of a `VideoModel`: frames of a video, computed one after the other, follow each other; photos stand alone.

    Attributes:
        compare: whether some later frames are computed alone too, for their time.
        pace: how long frames took.
    """

    model: VideoModel

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        self.compare = False
        self.pace = Pace()

    def stream_frames(self, frames: Iterable[Frame], score: float = 0.5, batch_size: int = 1) -> Iterator[Instances]:
        """What is in each frame; `batch_size` does not matter, as each waits for the one before."""
        memory: Any = None

        def follow(batch: Batch, _: float) -> list[Detections]:
            nonlocal memory
            batch = batch.to(self.device, non_blocking=True)
            if self.compare and memory is not None and len(self.pace.following) % EVERY == 0:
                self._timed(batch, None)
            found, memory = self._timed(batch, memory)
            return found

        for frame in frames:
            if not frame.number:
                memory = None
            yield from self.predict_frames([frame], score, follow)

    def _timed(self, batch: Batch, memory: Any) -> tuple[list[Detections], Any]:
        started = time.perf_counter()
        with torch.inference_mode():
            out = self.model.follow(batch, memory)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        (self.pace.alone if memory is None else self.pace.following).append(time.perf_counter() - started)
        return out
