"""A page to look at results: photo, truth and prediction side by side, with the numbers. One file, nothing fetched.

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
from perpixel.engine.evaluate import Evaluation
from perpixel.engine.files import write_atomically
from perpixel.engine.instances import Instances
from perpixel.engine.metrics import Metrics
from perpixel.engine.palette import color, hexadecimal
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
    ) -> "GalleryItem":
        """A photo with what was found in it and, where known, the truth.

        Args:
            name: shown above it.
            found, truth: in pixels of the photo; at least one of them.
            image: the photo; by default `found`'s or `truth`'s own.
            ignored: boxes of crowds; predictions inside them are neither right nor wrong.

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
            "photo": _embedded(image),
        }
        for key, instances in (("found", found), ("truth", truth)):
            if instances is not None:
                document[key] = [_described(instances, row, document["mask"]) for row in range(len(instances))]
                if instances.keypoints is not None:
                    document["limbs"] = [list(pair) for pair in instances.skeleton]
        if ignored is not None and len(ignored):
            document["ignored"] = np.round(ignored, 1).tolist()
        return cls(name, document, known[0].class_names)


def _embedded(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """The photo as a data address of a JPEG of at most `PHOTO_SIDE` pixels."""
    photo = Image.fromarray(image)
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
    """The evaluation's examples, each beside its truth."""
    for index, found in evaluation.examples.items():
        truth, ignored = truth_instances(dataset, index)
        name = truth.path.name if truth.path is not None else f"image {dataset.record(index).id}"
        yield GalleryItem.make(name, found, truth, ignored=ignored)


def write_gallery(
    path: str | Path,
    items: Iterable[GalleryItem],
    title: str,
    metrics: Mapping[Any, Metrics] | None = None,
    score: float = 0.5,
    notes: Sequence[str] = (),
) -> Path:
    """Writes the page as one self-contained file, photos embedded.

    Args:
        path: of the HTML file.
        items: photos with truth and prediction, taken one by one.
        title: heading.
        metrics: tables shown above the photos, by kind.
        score: where the score slider stands at first.
        notes: lines under the heading: the command, the data, the date.

    Raises:
        InputError: the file cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    page = files("perpixel.engine").joinpath("gallery.html").read_text(encoding="utf-8")
    head, tail = page.split("<!--ITEMS-->")
    settings = {"score": score, "metrics": [m.to_dict() for m in (metrics or {}).values()]}
    marks = {
        "<!--TITLE-->": html.escape(title),
        "<!--NOTES-->": "".join(f"<p>{html.escape(note)}</p>" for note in notes),
        "<!--SETTINGS-->": _script_json(settings),
    }

    def write(file: Path) -> None:
        names: tuple[str, ...] = ()
        with file.open("w", encoding="utf-8") as out:
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
