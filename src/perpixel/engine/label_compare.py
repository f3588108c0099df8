"""Masks drawn from boxes against masks that were held back, annotation by annotation: no detection is involved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco import mask as codec
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perpixel.config import load_json, short
from perpixel.data.dataset import size_fault
from perpixel.data.text import read_text
from perpixel.engine.label_file import FIELD
from perpixel.errors import InputError


@dataclass(frozen=True)
class Agreement:
    """How well masks agree with the truth.

    Attributes:
        name: of the masks.
        ious: (n,) IoU of each mask with its truth.
        scores: (n,) of the masks, or None where they have none.
        missing: annotations with a true mask that have none here.
    """

    name: str
    ious: Float[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"] | None
    missing: int

    @property
    def correlation(self) -> float | None:
        """Spearman's rank correlation of score and IoU: whether the sheet shows the worst masks first."""
        if self.scores is None or len(self.ious) < 2:
            return None
        ranks = [_ranks(self.ious), _ranks(self.scores)]
        return float(np.corrcoef(np.stack(ranks))[0, 1]) if all(len(np.unique(r)) > 1 for r in ranks) else None


def compare(truth: Path, masks: Mapping[str, Path]) -> list[Agreement]:
    """The masks of each file against those of `truth` by annotation id, crowds left out; last, what filled boxes reach.

    Args:
        truth: COCO ground truth with masks.
        masks: by name, files that `label` wrote.

    Raises:
        InputError: a file that cannot be read, or no annotation in common.
    """
    images, wanted = _masks(truth, drawn_only=False)
    found = []
    boxes: dict[Any, float] = {}
    for name, path in masks.items():
        _, drawn = _masks(path, drawn_only=True)
        common = [number for number in wanted if number in drawn]
        if not common:
            raise InputError(
                f"{path}: shares no annotation id with a mask with {truth}, so there is nothing to compare"
            )
        ious, scores = [], []
        for number in common:
            size = images[wanted[number]["image_id"]]
            try:
                code = _code(wanted[number]["segmentation"], size)
                ious.append(_iou(code, _code(drawn[number]["segmentation"], size)))
                scores.append(float(drawn[number][FIELD]["score"]))
                boxes.setdefault(number, _iou(code, _filled(drawn[number]["bbox"], size)))
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
                raise InputError(
                    f"{truth} and {path}: annotation {short(number)}: segmentation, bbox or score cannot be used ({short(error)})"
                ) from error
        found.append(Agreement(name, np.array(ious), np.array(scores, dtype=float), len(wanted) - len(common)))
    return [*found, Agreement("filled boxes", np.array(list(boxes.values())), None, len(wanted) - len(boxes))]


def print_agreements(rows: Sequence[Agreement]) -> None:
    """A table, a row for each kind of masks."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    headings = ("masks", "compared", "missing", "mean IoU", "IoU > 0.5", "IoU > 0.75", "score ~ IoU")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows:
        shares = [f"{100 * (row.ious > least).mean():.1f} %" for least in (0.5, 0.75)]
        correlation = "-" if row.correlation is None else f"{row.correlation:.2f}"
        mean = f"{row.ious.mean():.3f}"
        table.add_row(Text(row.name), str(len(row.ious)), str(row.missing), mean, *shares, correlation)
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table, highlight=False)
    console.print("score ~ IoU: rank correlation of a mask's score with its IoU", highlight=False)


def _masks(path: Path, drawn_only: bool) -> tuple[dict[Any, tuple[int, int]], dict[Any, dict[str, Any]]]:
    """Sizes of the images by id, and by id the annotations with a mask that are no crowds."""
    try:
        document = load_json(read_text(path))
        images = {entry["id"]: _size(entry) for entry in document["images"]}
        kept = {
            entry["id"]: entry
            for entry in document["annotations"]
            if isinstance(entry, dict)
            and entry.get("segmentation")
            and not entry.get("iscrowd")
            and (not drawn_only or (entry.get(FIELD) or {}).get("mask"))
        }
        missing = next((entry["image_id"] for entry in kept.values() if entry["image_id"] not in images), None)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be compared, it is no COCO file with ids and sizes ({short(error)})"
        ) from error
    if missing is not None:
        raise InputError(f"{path}: cannot be compared: image_id={short(missing)} names no image")
    return images, kept


def _size(entry: dict[str, Any]) -> tuple[int, int]:
    size = entry["height"], entry["width"]
    if type(size[0]) is not int or type(size[1]) is not int or size_fault(size):
        raise ValueError(f"height and width {short(size)} are no size of an image")
    return size


def _code(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """A mask of COCO in any of its three forms as a compressed code."""
    if isinstance(segmentation, list):
        return codec.merge(codec.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return codec.frPyObjects(segmentation, *size)
    return {"size": segmentation["size"], "counts": segmentation["counts"].encode("utf-8")}


def _filled(box: Sequence[float | int], size: tuple[int, int]) -> dict[str, Any]:
    x, y, width, height = box
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return codec.merge(codec.frPyObjects([corners], *size))


def _iou(a: dict[str, Any], b: dict[str, Any]) -> float:
    return float(np.asarray(codec.iou([a], [b], [False]))[0, 0])


def _ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks, ties sharing their mean."""
    _, owner, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    return (ends - (counts - 1) / 2)[owner]
