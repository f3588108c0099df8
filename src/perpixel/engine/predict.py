"""A model at work on photos and videos: from any source to `Instances`."""

import copy
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Num
from torch import Tensor

from perpixel.data.image import Image
from perpixel.data.loader import prepare_image
from perpixel.data.settings import TestSize
from perpixel.engine.ahead import ahead
from perpixel.engine.bar import counting_bar
from perpixel.engine.distributed import choose_device
from perpixel.engine.fast import optimize
from perpixel.engine.gallery import GalleryItem, write_gallery
from perpixel.engine.instances import Instances, largest_shares
from perpixel.engine.panoptic_files import PanopticFiles
from perpixel.engine.prediction_files import PictureWriter, ResultsFile, unique_names
from perpixel.engine.sources import (
    VIDEO_SUFFIXES,
    Anything,
    Frame,
    Photo,
    Source,
    Video,
    is_camera,
    is_single,
    is_stream,
    list_sources,
)
from perpixel.engine.track import TrackSettings, tracked
from perpixel.engine.visualize import Style
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


def _opened(item: Source) -> Iterator[Frame]:
    """An item's frames: a photo's is read now, a video's while they are used, a camera's when asked for.

    A photo that cannot be read says so when its frame is asked for.
    """
    if isinstance(item, Photo):
        try:
            return iter([*item.frames()])
        except InputError as error:
            return _refusing(error)
    return item.frames() if item.path is None else ahead(item.frames())


def _refusing(error: InputError) -> Iterator[Frame]:
    raise error
    yield  # makes it an iterator, so that the error waits for its turn


@dataclass(frozen=True)
class Predicted:
    """What `predict_to_folder` wrote.

    Attributes:
        pictures: annotated pictures and videos.
        results: COCO results of all photos and frames; image_id counts them from 1, file_name names them.
        gallery: the page to look at, or None.
        photos: photos and frames predicted on.
        instances: objects found in all.
        refused: a sentence for each photo or video that could not be read.
        panoptic: COCO's json of the segments of all photos and frames, the pictures beside it; None without segments.
        shares: of a model that knows no objects, the classes with the most pixels of all photos and frames, in words.
    """

    pictures: list[Path]
    results: Path
    gallery: Path | None
    photos: int
    instances: int
    refused: list[str]
    panoptic: Path | None = None
    shares: str = ""

    @property
    def says(self) -> str:
        """What was found, in words."""
        if self.shares:
            return f"{self.photos} pictures: {self.shares}"
        return f"{self.instances} objects in {self.photos} pictures: {self.results}"

    @property
    def status(self) -> int:
        """The command's exit status: 0, or 1 where something could not be read."""
        return 1 if self.refused else 0


def predict_to_folder(
    predictor: AnyPredictor,
    source: Anything,
    out: str | Path,
    score: float = 0.5,
    gallery: int = 200,
    style: Style | None = None,
    progress: bool = True,
    title: str = "perpixel: predictions",
    track: TrackSettings | None = None,
    frames_apart: bool = False,
) -> Predicted:
    """Predicts on everything in `source` and writes annotated pictures, one COCO results file and a page to look at.

    A photo that cannot be read is named and the others go on: each input ends in `pictures` or in `refused`. The results
    file is complete JSON even if the work is interrupted.

    Args:
        predictor: the model.
        source: as `list_sources` takes it.
        out: folder for ``results.json``, ``gallery.html`` and the pictures, of a panoptic model ``panoptic.json`` and
            ``panoptic/`` too; made where it is missing. Or, of a source that is one video, the .mp4 to write: its results go into
            the .json beside it.
        score: smallest score kept.
        gallery: photos shown on the page at most; 0 writes none.
        style: how pictures are drawn.
        progress: whether to show a bar.
        title: heading of the page.
        track: follow objects over the frames of each video.
        frames_apart: write a picture of each frame of a video, in a folder, in place of a video.

    Raises:
        InputError: the source as a whole is wrong, or `out` cannot be written.
    """
    alone = Path(out) if Path(out).suffix.lower() in VIDEO_SUFFIXES else None
    folder = Path(out) if alone is None else alone.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made a folder: {error.strerror}") from error
    listed = list(list_sources(source))
    if alone is not None and (alone.suffix.lower() != ".mp4" or len(listed) != 1 or not isinstance(listed[0], Video)):
        raise InputError(f"{alone} is written of one video, as .mp4: name a folder for everything else")
    if track is not None and not any(isinstance(item, Video) for item in listed):
        raise InputError("objects are followed through a video: give a video, or a folder with its frames")
    lengths = [1 if isinstance(item, Photo) else item.length() for item in listed]
    total = None if None in lengths else sum(length or 0 for length in lengths)
    names = unique_names([item.path.name if item.path else f"{item.name}.png" for item in listed])
    json_file = folder / "results.json" if alone is None else alone.with_suffix(".json")
    if alone is not None:
        names = [alone.name]
    pictures: list[Path] = []
    refused: list[str] = []
    shown: list[GalleryItem] = []
    photos = instances = whole = 0
    pixels: Counter[str] = Counter()
    with (
        ResultsFile(json_file) as results,
        PanopticFiles(folder, predictor.class_names, predictor.category_ids, predictor.stuff) as segments,
        counting_bar("predict", total, show=progress) as bar,
    ):
        opened = ahead(_opened(item) for item in listed)
        for item, name, frames in zip(listed, names, opened, strict=True):
            try:
                with PictureWriter(folder / name, item, style, frames_apart) as writer:
                    followed = track if isinstance(item, Video) else None
                    lowest = score if followed is None else min(score, followed.low)
                    stream = predictor.stream_frames(frames, lowest)
                    for found in stream if followed is None else tracked(stream, followed, score):
                        photos, instances = photos + 1, instances + len(found)
                        writer.add(found)
                        label = name if found.frame is None else f"{name} frame {found.frame}"
                        results.add(found.to_coco(photos, predictor.category_ids), label)
                        if found.segments is not None:
                            segments.add(found.segments, photos, name, found.frame)
                            pixels.update(found.pixels)
                            whole += found.segments.map.numel()
                        if len(shown) < gallery and isinstance(item, Photo):
                            drawn = [] if found.segments is None else [("segments", found.plot(style))]
                            shown.append(GalleryItem.make(name, found, pictures=drawn))
                        bar.advance()
                pictures.append(writer.path)
            except InputError as error:
                refused.append(str(error))
                bar.say(f"left out: {error}")
                bar.advance()
    page, shares = None, ""
    if whole and not predictor.class_names:
        shares = largest_shares(pixels, whole)
    if shown:
        notes = [f"{photos} photos or frames, {shares or f'{instances} objects with a score of {score:g} or more'}"]
        notes += [f"left out: {sentence}" for sentence in refused]
        page = write_gallery(folder / "gallery.html", shown, title, score=score, notes=notes)
    return Predicted(pictures, json_file, page, photos, instances, refused, segments.written, shares)
