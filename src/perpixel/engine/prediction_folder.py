"""A folder of predictions: pictures, results as COCO's json, segments and a page, written while the model works."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perpixel.engine.ahead import ahead
from perpixel.engine.bar import counting_bar
from perpixel.engine.gallery import GalleryItem, write_gallery
from perpixel.engine.instances import largest_shares
from perpixel.engine.panoptic_files import PanopticFiles
from perpixel.engine.predict import AnyPredictor
from perpixel.engine.prediction_files import PictureWriter, ResultsFile, unique_names
from perpixel.engine.sources import (
    VIDEO_SUFFIXES,
    Anything,
    Frame,
    Photo,
    Source,
    Video,
    list_sources,
)
from perpixel.engine.track import TrackSettings, tracked
from perpixel.engine.visualize import Style
from perpixel.errors import InputError


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
