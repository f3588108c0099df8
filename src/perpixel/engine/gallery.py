"""A page to look at results: sections of numbers and charts, then photo, truth and prediction side by side. One file, nothing
fetched.

The photos lie in the page itself, reduced to JPEGs, so that it can be sent or stored as one file; objects are data that
the page draws, filters and counts at any score.
"""

import base64
import html
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from perpixel.data.dataset import Dataset
from perpixel.data.image import read_image
from perpixel.data.masks import draw_shape
from perpixel.data.panoptic import segments_of
from perpixel.engine.evaluate import Evaluation
from perpixel.engine.examples import Example
from perpixel.engine.files import UNSPEAKABLE, write_atomically
from perpixel.engine.instances import Instances
from perpixel.engine.palette import color, hexadecimal
from perpixel.engine.segments_picture import draw_segments
from perpixel.errors import InputError
from perpixel.ops.runs import encode

PHOTO_SIDE = 900
MASK_SIDE = 450


@dataclass(frozen=True)
class GalleryItem:
    """One photo of the page, reduced and ready to be written; `make` builds it.

    Attributes:
        name: shown above it.
        document: what the page's script reads.
        class_names: names of the labels.
    """

    name: str
    document: dict[str, Any]
    class_names: tuple[str, ...]

    @classmethod
    def make(
        cls,
        name: str,
        found: Instances | None = None,
        truth: Instances | None = None,
        image: UInt8[np.ndarray, "h w 3"] | None = None,
        ignored: Float[np.ndarray, "m 4"] | None = None,
        pictures: Sequence[tuple[str, Image.Image]] = (),
        note: str = "",
        group: str | None = None,
    ) -> "GalleryItem":
        """A photo with what was found in it and, where known, the truth.

        Args:
            name: shown above it.
            found, truth: in pixels of the photo; at least one of them.
            image: the photo; by default `found`'s or `truth`'s own.
            ignored: boxes of crowds; predictions inside them are neither right nor wrong.
            pictures: what is drawn already, with a title each: shown beside photo, truth and prediction.
            note: shown behind the name.
            group: the heading it stands under, as of `perpixel.engine.examples.Group`; items of a group follow each other.

        Raises:
            InputError: no photo, or neither truth nor prediction.
        """
        known = [instances for instances in (found, truth) if instances is not None]
        if not known:
            raise InputError(f"{name}: a gallery item needs a prediction, a truth or both")
        if image is None:
            image = next((instances.image for instances in known if instances.image is not None), None)
        if image is None and known[0].path is not None:
            image = read_image(known[0].path)
        if image is None:
            raise InputError(f"{name}: a gallery item needs its photo: pass image=")
        height, width = image.shape[:2]
        document: dict[str, Any] = {
            "name": name,
            "size": [width, height],
            "mask": [max(1, round(side * min(1, MASK_SIDE / max(width, height)))) for side in (width, height)],
            "photo": embedded(Image.fromarray(image)),
        }
        document |= {key: value for key, value in (("note", note), ("group", group)) if value}
        if pictures:
            document["pictures"] = [[title, embedded(picture)] for title, picture in pictures]
        for key, instances in (("found", found), ("truth", truth)):
            if instances is not None and (instances.class_names or not pictures):
                document[key] = [_described(instances, row, document["mask"]) for row in range(len(instances))]
                if instances.keypoints is not None:
                    document["limbs"] = [list(pair) for pair in instances.skeleton]
        if ignored is not None and len(ignored):
            document["ignored"] = np.round(ignored, 1).tolist()
        return cls(name, document, known[0].class_names)


def embedded(picture: Image.Image) -> str:
    """The picture as a data address of a JPEG of at most `PHOTO_SIDE` pixels."""
    photo = picture.copy()
    photo.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _described(instances: Instances, row: int, mask_size: Sequence[int]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "box": np.round(instances.boxes[row], 1).tolist(),
        "label": int(instances.labels[row]),
        "score": round(float(instances.scores[row]), 3),
    }
    if instances.runs is not None:
        described["mask"] = _small_mask(instances.mask(row), (mask_size[0], mask_size[1]))
    if instances.keypoints is not None:
        described["joints"] = np.round(instances.keypoints[row], 2).tolist()
    return described


def _small_mask(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> list[int]:
    """x, y, width, height of the reduced mask's extent, then the lengths of its runs row by row, outside first."""
    rows = (np.arange(size[1]) + 0.5) * mask.shape[0] / size[1]
    columns = (np.arange(size[0]) + 0.5) * mask.shape[1] / size[0]
    small = mask[rows.astype(int)][:, columns.astype(int)]
    y, x = np.flatnonzero(small.any(1)), np.flatnonzero(small.any(0))
    if not len(y):
        return [0, 0, 0, 0]
    inside = small[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    flat = np.concatenate([[False], inside.reshape(-1)])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], changes, [inside.size]]))
    return [int(x[0]), int(y[0]), inside.shape[1], inside.shape[0], *runs.tolist()]


def truth_instances(dataset: Dataset, index: int) -> tuple[Instances, Float[np.ndarray, "m 4"]]:
    """The truth of a data set's image, with scores of 1, and the boxes of its crowds."""
    record = dataset.record(index)
    rows = np.flatnonzero(~record.crowd)
    shapes = [record.shapes[row] for row in rows] if record.shapes else []
    runs = None
    if shapes and all(shape is not None for shape in shapes):
        runs = tuple(run for s in shapes if s is not None for run in encode(draw_shape(s, record.size)[None]))
    truth = Instances(
        boxes=record.boxes[rows],
        scores=np.ones(len(rows), dtype=np.float32),
        labels=record.labels[rows],
        class_names=dataset.classes,
        size=record.size,
        runs=runs,
        keypoints=None if record.keypoints is None else record.keypoints[rows],
        skeleton=dataset.skeleton,
        image=dataset.image(index),
        path=record.path,
    )
    return truth, record.boxes[record.crowd]


def evaluation_items(dataset: Dataset, evaluation: Evaluation) -> Iterator[GalleryItem]:
    """The evaluation's examples, each beside its truth, segments too."""
    for example in evaluation.examples:
        truth, ignored = truth_instances(dataset, example.index)
        name = truth.path.name if truth.path is not None else f"image {dataset.record(example.index).id}"
        pictures = _segments(dataset, example, truth)
        yield GalleryItem.make(
            name, example.found, truth, ignored=ignored, pictures=pictures, note=example.note, group=example.group
        )


def _segments(dataset: Dataset, example: Example, truth: Instances) -> list[tuple[str, Image.Image]]:
    """True and predicted segments drawn on the photo; nothing without segments."""
    segments, image = example.found.segments, truth.image
    if segments is None or image is None or not dataset.stuff:
        return []
    names, things = (*dataset.classes, *dataset.stuff.names), len(dataset.classes)
    both = (("true segments", segments_of(dataset, example.index)), ("predicted segments", segments))
    return [(title, draw_segments(image, s, [names[i] for i in s.labels.tolist()], things)) for title, s in both]


def write_gallery(
    path: str | Path,
    items: Iterable[GalleryItem],
    title: str,
    score: float = 0.5,
    notes: Sequence[str] = (),
    sections: Sequence[str] = (),
    after: Sequence[str] = (),
) -> Path:
    """Writes the page as one self-contained file, photos embedded.

    Args:
        path: of the HTML file.
        items: photos with truth and prediction, taken one by one.
        title: heading.
        score: where the score slider stands at first.
        notes: lines under the heading: the command, the data, the date.
        sections: HTML made of the parts in `perpixel.engine.page`, shown above the photos.
        after: the same, shown below them.

    Raises:
        InputError: the file cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    page = files("perpixel.engine").joinpath("gallery.html").read_text(encoding="utf-8")
    head, tail = page.split("<!--ITEMS-->")
    settings = {"score": score}
    marks = {
        "<!--TITLE-->": html.escape(title),
        "<!--NOTES-->": "".join(f"<p>{html.escape(note)}</p>" for note in notes),
        "<!--SETTINGS-->": _script_json(settings),
        "<!--SECTIONS-->": "\n".join(sections),
        "<!--AFTER-->": "\n".join(after),
    }

    def write(file: Path) -> None:
        names: tuple[str, ...] = ()
        with file.open("w", encoding="utf-8", errors=UNSPEAKABLE) as out:
            out.write(_filled(head, marks))
            for item in items:
                names = names or item.class_names
                out.write(f'<script type="application/json" class="item">{_script_json(item.document)}</script>\n')
            classes = [{"name": name, "color": hexadecimal(color(label))} for label, name in enumerate(names)]
            out.write(_filled(tail, {"<!--CLASSES-->": _script_json(classes)}))

    write_atomically(target, write)
    return target


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _filled(text: str, marks: Mapping[str, str]) -> str:
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text
