"""A model at work on photos and videos: from any source to `Instances`."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Num
from torch import Tensor

from perpixel.data.image import Image
from perpixel.data.loader import prepare_image
from perpixel.data.settings import TestSize
from perpixel.engine.ahead import ahead
from perpixel.engine.distributed import choose_device
from perpixel.engine.fast import optimize
from perpixel.engine.instances import Instances
from perpixel.engine.sources import (
    Anything,
    Frame,
    is_camera,
    is_single,
    is_stream,
    list_sources,
)
from perpixel.errors import InputError
from perpixel.models.heads import Model
from perpixel.structures import Batch, Detections, Stuff, pad_images


class AnyPredictor(ABC):
    """Something that finds objects in batches, with what is needed to use it on photos.

    Args:
        class_names: name of each label.
        test_size: the size photos are resized to.
        divisor: the padded input's sides are multiples of it.
        category_ids: number of each class in COCO results; by default label + 1.
        stuff: the classes without objects that a panoptic model knows.
        keypoint_names: of the keypoints that the model predicts, if it does.
        skeleton: pairs of them that a limb joins in pictures, counted from 0.

    Attributes:
        speed: what was done to make it fast, in one sentence.
    """

    speed: str = "as it was made"

    def __init__(
        self,
        class_names: Sequence[str],
        test_size: TestSize | None = None,
        divisor: int = 32,
        category_ids: Sequence[int] | None = None,
        stuff: Stuff | None = None,
        keypoint_names: Sequence[str] = (),
        skeleton: tuple[tuple[int, int], ...] = (),
    ):
        self.class_names = tuple(class_names)
        self.test_size = test_size or TestSize()
        self.divisor = divisor
        self.category_ids = None if category_ids is None else tuple(category_ids)
        self.stuff = stuff or Stuff()
        self.keypoint_names = tuple(keypoint_names)
        self.skeleton = skeleton

    @abstractmethod
    def detect(self, batch: Batch, score: float) -> list[Detections]:
        """What is in each image of a batch; rows below `score` may be left out."""

    def prepare(self, image: Image) -> tuple[Num[Tensor, "3 h w"], tuple[int, int]]:
        """The input of a photo, and the (height, width) of the photo inside it."""
        return prepare_image(image, self.test_size)

    def predict(
        self, source: Anything, score: float = 0.5, batch_size: int = 1
    ) -> Instances | list[Instances] | Iterator[Instances]:
        """What is in `source`.

        One photo (a path, PIL image, array or tensor) gives one `Instances`; a folder, a pattern or a list gives a
        list, which keeps no pixels of photos that can be read again; a video or camera gives an iterator over its
        frames. `list_sources` says what a source can be.

        Args:
            source: see above.
            score: smallest score kept.
            batch_size: photos computed at once.

        Raises:
            InputError: a source that does not exist or cannot be read.
        """
        stream = self.stream(source, score, batch_size)
        if is_stream(source):
            return stream
        if is_single(source):
            return next(stream)
        return [found.without_image() for found in stream]

    def stream(self, source: Anything, score: float = 0.5, batch_size: int = 1) -> Iterator[Instances]:
        """What is in each photo or frame of `source`, in order, with bounded memory; each holds its pixels.

        Raises:
            InputError: a source that does not exist or cannot be read, when its turn comes.
        """
        frames = (frame for item in list_sources(source) for frame in item.frames())
        # A camera's frames would grow old while they wait; one photo has nothing to be read beside.
        alone = is_camera(source) or is_single(source)
        return self.stream_frames(frames if alone else ahead(frames), score, batch_size)

    def stream_frames(self, frames: Iterable[Frame], score: float = 0.5, batch_size: int = 1) -> Iterator[Instances]:
        """The same for frames already read."""
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} is not a positive number of photos")
        waiting: list[Frame] = []
        for frame in frames:
            waiting.append(frame)
            if len(waiting) == batch_size:
                yield from self.predict_frames(waiting, score)
                waiting = []
        if waiting:
            yield from self.predict_frames(waiting, score)

    def predict_frames(
        self,
        frames: Sequence[Frame],
        score: float = 0.5,
        detect: Callable[[Batch, float], list[Detections]] | None = None,
    ) -> list[Instances]:
        """What is in each of several frames, computed at once, by `detect` in place of the predictor's own where it is given."""
        prepared = [self.prepare(frame.image) for frame in frames]
        batch = Batch(
            images=pad_images([image for image, _ in prepared], self.divisor),
            sizes=tuple(size for _, size in prepared),
            originals=tuple(frame.image.shape[:2] for frame in frames),
            ids=tuple(range(len(frames))),
        )
        return [
            Instances.from_detections(
                found,
                frame.image.shape[:2],
                self.class_names,
                score=score,
                image=frame.image,
                path=frame.path,
                frame=frame.number,
                skeleton=self.skeleton,
                stuff_names=self.stuff.names,
            )
            for found, frame in zip((detect or self.detect)(batch, score), frames, strict=True)
        ]


class Predictor(AnyPredictor):
    """A model with what is needed to use it on photos.

    Args:
        model: any `Model`; moved to the device and set to evaluation.
        class_names, test_size, divisor, category_ids, stuff, keypoint_names, skeleton: as of `AnyPredictor`.
        device: where to compute; None takes the GPU if there is one.
    """

    def __init__(
        self,
        model: Model,
        class_names: Sequence[str],
        test_size: TestSize | None = None,
        device: torch.device | str | None = None,
        divisor: int = 32,
        category_ids: Sequence[int] | None = None,
        stuff: Stuff | None = None,
        keypoint_names: Sequence[str] = (),
        skeleton: tuple[tuple[int, int], ...] = (),
    ):
        super().__init__(class_names, test_size, divisor, category_ids, stuff, keypoint_names, skeleton)
        self.device = choose_device(device)
        self.model = model.to(self.device).eval()

    def optimize(self, level: str | bool = True) -> "Predictor":
        """A faster predictor of the same model; this one stays as it is, and `speed` of the new one says what was done.

        Args:
            level: `exact` changes nothing but rounding, `bf16` computes the network in bfloat16, `compile` compiles it as well
                (`perpixel.engine.fast`); True takes bf16 where the hardware computes it, else exact; False is `off`.

        Raises:
            InputError: no such level, or bf16 on hardware that lacks it.
        """
        done = optimize(self.model, level, self.device)
        faster = copy.copy(self)
        faster.model, faster.speed = done.model, done.says
        return faster

    def detect(self, batch: Batch, score: float) -> list[Detections]:
        """All that the model finds."""
        with torch.inference_mode():
            return self.model.predict(batch.to(self.device, non_blocking=True))
