"""Pages to look through a data set: all its images with boxes, masks, keypoints; what looks like a slip; what is there twice."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from perpixel.data.check import Report, check_dataset
from perpixel.data.dataset import Dataset
from perpixel.data.masks import draw_shape
from perpixel.data.near_duplicates import near_duplicates
from perpixel.data.open import open_dataset
from perpixel.data.suspicious import Suspicion, suspicions
from perpixel.engine import data_stats, page
from perpixel.engine.bar import Bar, counting_bar
from perpixel.engine.examples import evenly
from perpixel.engine.gallery import GalleryItem, truth_instances, write_gallery
from perpixel.errors import InputError
from perpixel.ops.runs import encode

_LISTED = 2000
"""Rows of a table on the first page."""


@dataclass(frozen=True)
class View:
    """What was written.

    Attributes:
        index: the first page.
        pages: of all images, those to look at, those there twice.
        shown: images on the pages of all.
        odd: objects that look like a slip, by kind.
        groups: groups of near duplicates.
        problems: a sentence for each image and object that cannot be used.
    """

    index: Path
    pages: Sequence[Path]
    shown: int
    odd: Counter[str]
    groups: int
    problems: Sequence[str]

    def lines(self) -> list[str]:
        """What the command prints."""
        lines = [f"{self.shown} images on {len(self.pages)} pages; {self.groups} groups of near duplicates"]
        lines += [f"look at: {count} x {kind}" for kind, count in self.odd.most_common()]
        return [*lines, *(f"problem: {sentence}" for sentence in self.problems)]


def write_view(
    source: str | Path,
    out: Path,
    images: str | Path | None = None,
    *,
    on_page: int = 100,
    most: int | None = None,
    progress: bool = True,
) -> View:
    """Writes ``index.html`` and the pages it leads to; each is one file that fetches nothing.

    Bad images and objects are listed, whatever they are: this is where one looks for them.

    Args:
        source, images: as of `open_dataset`.
        out: folder of the pages, made where it is missing.
        on_page: images on a page.
        most: images shown, spread over the data set; None shows all. All are examined.
        progress: whether to show a bar.

    Raises:
        InputError: the annotations cannot be read at all.
    """
    if on_page < 1 or (most is not None and most < 1):
        raise InputError("--on-page and --most are positive numbers of images")
    report = check_dataset(source, images, console=Console(stderr=True) if progress else None)
    dataset = open_dataset(source, images, skip_bad=True)
    odd = {
        row: found
        for row in range(len(dataset))
        if (found := suspicions(dataset.record(row), dataset.stated_boxes(row)))
    }
    chosen = list(range(len(dataset))) if most is None else evenly(len(dataset), most)
    with counting_bar("compare", len(dataset), show=progress) as bar:
        groups = [group for group in near_duplicates(dataset, bar.advance) if len(group) > 1]
    out.mkdir(parents=True, exist_ok=True)
    doubles = {row: f"group {number}" for number, group in enumerate(groups, start=1) for row in group}
    sets = {
        "page": dict.fromkeys(chosen, ""),
        "look_at": {row: "; ".join(f"{_named(dataset, row, one)} {one.sentence}" for one in odd[row]) for row in odd},
        "duplicates": {row: doubles[row] for group in groups for row in group},
    }
    with counting_bar("draw", sum(map(len, sets.values())), show=progress) as bar:
        pages = {name: _write_pages(dataset, rows, out, name, on_page, bar) for name, rows in sets.items()}
    index = _write_index(source, out, images, dataset, report, odd, groups, pages)
    kinds = Counter(one.kind for found in odd.values() for one in found)
    return View(index, [p for paths in pages.values() for p in paths], len(chosen), kinds, len(groups), report.problems)


def _write_pages(dataset: Dataset, rows: dict[int, str], out: Path, name: str, on_page: int, bar: Bar) -> list[Path]:
    """The images of these rows, each with its note, on pages that lead to each other."""
    order = list(rows)
    paths = [out / f"{name}_{number:03}.html" for number in range(1, -(-len(order) // on_page) + 1)]
    ways = [("index.html", "overview"), *((path.name, path.stem.replace("_", " ")) for path in paths)]
    for number, path in enumerate(paths):
        part = order[number * on_page : (number + 1) * on_page]
        title = f"{Path(dataset.name).name}: {path.stem.replace('_', ' ')} of {len(paths)}"
        items = _items(dataset, part, rows, bar)
        write_gallery(
            path, items, title, sections=[page.links(ways, here=path.name)], after=[page.links(ways, here=path.name)]
        )
    return paths


def _items(dataset: Dataset, part: Sequence[int], notes: dict[int, str], bar: Bar) -> Iterator[GalleryItem]:
    for row in part:
        bar.advance()
        try:
            truth, crowds = truth_instances(dataset, row)
        except InputError:
            continue  # among the problems on the first page
        record = dataset.record(row)
        single = np.flatnonzero(~record.crowd)
        shapes = [record.shapes[place] for place in single]
        if truth.runs is None and any(shape is not None for shape in shapes):
            none = np.zeros(record.size, dtype=bool)
            drawn = np.stack([none if shape is None else draw_shape(shape, record.size) for shape in shapes])
            truth = replace(truth, runs=tuple(encode(drawn)))
        yield GalleryItem.make(_name(dataset, row), truth=truth, ignored=crowds, note=notes[row])


def _write_index(
    source: str | Path,
    out: Path,
    images: str | Path | None,
    dataset: Dataset,
    report: Report,
    odd: dict[int, list[Suspicion]],
    groups: list[list[int]],
    pages: dict[str, list[Path]],
) -> Path:
    ways = [(path.name, path.stem.replace("_", " ")) for path in pages["page"]]
    doubts = [
        [
            _name(dataset, row),
            str(dataset.record(row).annotation_ids[one.row]),
            _class(dataset, row, one),
            one.kind,
            one.sentence,
        ]
        for row, found in odd.items()
        for one in found
    ]
    names = [", ".join(_name(dataset, row) for row in group) for group in groups]
    doubles = [[f"group {number}", name] for number, name in enumerate(names, start=1)]
    parts = [
        page.section("All images", page.links(ways)),
        page.section(
            f"Problems ({len(report.problems)})", _listed(["what cannot be used"], [[s] for s in report.problems])
        ),
        page.section(
            f"Objects to look at ({len(doubts)})",
            page.links([(path.name, path.stem.replace("_", " ")) for path in pages["look_at"]]),
            _listed(["image", "annotation", "class", "kind", "what"], doubts),
        ),
        page.section(
            f"Near duplicates ({len(groups)} groups)",
            page.links([(path.name, path.stem.replace("_", " ")) for path in pages["duplicates"]]),
            _listed(["group", "images"], doubles),
        ),
        *data_stats.sections(data_stats.measure(source, images, skip_bad=True)),
    ]
    return write_gallery(
        out / "index.html", [], f"perpixel: {Path(dataset.name).name}", notes=[dataset.name], sections=parts
    )


def _listed(headings: Sequence[str], rows: list[list[str]]) -> str:
    """A table, and how many rows it does not have."""
    if not rows:
        return page.paragraph("none")
    more = page.paragraph(f"… and {len(rows) - _LISTED} more") if len(rows) > _LISTED else ""
    return page.table(headings, rows[:_LISTED], look="sentences") + more


def _name(dataset: Dataset, row: int) -> str:
    record = dataset.record(row)
    return f"image {record.id}" if record.path is None else record.path.name


def _class(dataset: Dataset, row: int, one: Suspicion) -> str:
    return dataset.classes[int(dataset.record(row).labels[one.row])]


def _named(dataset: Dataset, row: int, one: Suspicion) -> str:
    return f"{_class(dataset, row, one)} {dataset.record(row).annotation_ids[one.row]}:"
