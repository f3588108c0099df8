"""Looks through a whole data set before any training: every file, every box, every mask."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from perpixel.data.dataset import Dataset, Record, Rle
from perpixel.data.masks import draw_shape
from perpixel.data.open import open_dataset
from perpixel.data.sheet import picture_sheet
from perpixel.data.suspicious import suspicions
from perpixel.errors import InputError

_THREADS = 4
_SMALL, _LARGE = 32**2, 96**2
_SHOWN = 30


@dataclass(frozen=True)
class Report:
    """What a data set holds and what is wrong with it.

    Attributes:
        name: the source.
        images: usable images.
        objects: usable objects, crowds not counted.
        crowds: groups of objects, and objects marked difficult.
        empty: images without objects.
        classes: objects of each class.
        sizes: objects whose box is small (below 32 x 32 pixels), medium, or large (from 96 x 96), in original pixels.
        masks: objects with a mask.
        keypoints: objects with a labelled keypoint.
        problems: one sentence each; such images and objects are what skip_bad leaves out.
        remarks: what is odd but can be used.
        suspicions: objects that look like a slip, a sentence each; they can be used too.
    """

    name: str
    images: int
    objects: int
    crowds: int
    empty: int
    classes: dict[str, int]
    sizes: dict[str, int]
    masks: int
    keypoints: int
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    suspicions: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether training can begin as things are."""
        return not self.problems


def check_dataset(
    source: str | Path,
    images: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    segments: str | Path | None = None,
    sheet: Path | None = None,
    console: Console | None = None,
) -> Report:
    """Opens every image and examines every object of a data set.

    Args:
        source, images, classes, segments: as for `open_dataset`.
        sheet: where to write a sheet of pictures with their boxes (a PNG).
        console: shows a progress bar on it; None is silent.

    Raises:
        InputError: the annotations cannot be read at all. Bad images and objects are reported instead.
    """
    dataset = open_dataset(source, images, classes=classes, segments=segments, skip_bad=True)
    problems, remarks, odd = list(dataset.skipped), [], []
    counts = np.zeros(len(dataset.classes), dtype=np.int64)
    areas: list[np.ndarray] = []
    crowds = empty = masks = keypoints = 0
    usable = len(dataset)
    for index, (record, problem) in enumerate(_examined(dataset, console)):
        if problem:
            problems.append(problem)
            usable -= 1
            continue
        bad = _bad_masks(dataset, record)
        problems += bad.values()
        for suspicion in suspicions(record, dataset.stated_boxes(index)):
            where = f"annotation {record.annotation_ids[suspicion.row]} of image {record.id!r}"
            odd.append(f"{where}: {suspicion.sentence}")
        left = np.array([row not in bad for row in range(len(record))], dtype=bool)
        single = left & ~record.crowd
        counts += np.bincount(record.labels[single], minlength=len(counts))
        boxes = record.boxes[single]
        areas.append((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        crowds += int((left & record.crowd).sum())
        empty += not single.any()
        masks += sum(record.shapes[row] is not None for row in np.flatnonzero(single))
        if record.keypoints is not None:
            keypoints += int((record.keypoints[single][..., 2] > 0).any(1).sum())
    absent = [name for name, count in zip(dataset.classes, counts, strict=True) if not count]
    if absent:
        remarks.append(f"{len(absent)} classes have no object: {', '.join(absent[:_SHOWN])}")
    if 0 < masks < counts.sum():
        remarks.append(
            f"{counts.sum() - masks} objects have a box but no mask: data.masks=some learns from those drawn"
        )
    if sheet is not None:
        picture_sheet(dataset).save(sheet)
    area = np.concatenate(areas) if areas else np.zeros(0)
    return Report(
        name=dataset.name,
        images=usable,
        objects=int(counts.sum()),
        crowds=crowds,
        empty=empty,
        classes={name: int(count) for name, count in zip(dataset.classes, counts, strict=True)},
        sizes={
            "small": int((area < _SMALL).sum()),
            "medium": int(((area >= _SMALL) & (area < _LARGE)).sum()),
            "large": int((area >= _LARGE).sum()),
        },
        masks=masks,
        keypoints=keypoints,
        problems=tuple(problems),
        remarks=tuple(remarks),
        suspicions=tuple(odd),
    )


def print_report(report: Report, console: Console) -> None:
    """Shows a report as tables."""
    about = f": {report.images} images, {report.objects} objects"
    console.print(Text.assemble((report.name, "bold"), about))
    facts = Table(box=None, show_header=False)
    facts.add_row("images without objects", str(report.empty))
    facts.add_row("crowds and difficult objects", str(report.crowds))
    facts.add_row("objects with a mask", str(report.masks))
    facts.add_row("objects with keypoints", str(report.keypoints))
    for name, note in (("small", "below 32x32"), ("medium", "below 96x96"), ("large", "96x96 and more")):
        facts.add_row(f"{name} boxes ({note} pixels)", str(report.sizes[name]))
    console.print(facts)
    classes = Table("class", "objects", "share", title="classes", title_justify="left")
    for name, count in sorted(report.classes.items(), key=lambda item: -item[1]):
        classes.add_row(Text(name), str(count), f"{count / max(report.objects, 1):.1%}")
    console.print(classes)
    for remark in report.remarks:
        console.print(Text.assemble(("remark ", "yellow"), remark), soft_wrap=True)
    for suspicion in report.suspicions[:_SHOWN]:
        console.print(Text.assemble(("look at ", "yellow"), suspicion), soft_wrap=True)
    if len(report.suspicions) > _SHOWN:
        console.print(f"… and {len(report.suspicions) - _SHOWN} more objects to look at: perpixel data view lists all")
    for problem in report.problems[:_SHOWN]:
        console.print(Text.assemble(("problem ", "red"), problem), soft_wrap=True)
    if len(report.problems) > _SHOWN:
        console.print(f"… and {len(report.problems) - _SHOWN} more problems")
    console.print("[green]ready for training[/]" if report.good else f"[red]{len(report.problems)} problems[/]")


def _examined(dataset: Dataset, console: Console | None) -> Iterator[tuple[Record, str | None]]:
    """Every record with what is wrong with its image; a few images are decoded at a time."""

    def examine(index: int) -> tuple[Record, str | None]:
        record = dataset.record(index)
        try:
            dataset.image(index)
        except InputError as error:
            return record, f"{error}, with its {len(record)} objects"
        return record, None

    columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        Progress(*columns, console=console, disable=console is None, transient=True) as progress,
    ):
        task = progress.add_task("checking", total=len(dataset))
        for start in range(0, len(dataset), 64):
            for result in pool.map(examine, range(start, min(start + 64, len(dataset)))):
                yield result
                progress.advance(task)


def _bad_masks(dataset: Dataset, record: Record) -> dict[int, str]:
    """What is wrong with the masks of a record, by row."""
    bad: dict[int, str] = {}
    for row, shape in enumerate(record.shapes):
        if shape is None:
            continue
        where = f"{dataset.name}: annotation {record.annotation_ids[row]} of image {record.id!r}: segmentation"
        try:
            empty = not draw_shape(shape, record.size).any()
        except InputError as error:
            bad[row] = f"{where}: {error}"
            continue
        if empty:
            kind = "run-length code" if isinstance(shape, Rle) else "polygon"
            bad[row] = f"{where}: the {kind} covers no pixel of the image"
    return bad
