"""A data set written in another form, or in parts: what goes in comes out, or is counted and named."""

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perpixel.data.dataset import Dataset
from perpixel.data.document import Document, Losses
from perpixel.data.near_duplicates import near_duplicates
from perpixel.data.split import deal
from perpixel.data.write import WRITERS
from perpixel.data.writer import Part
from perpixel.engine.bar import counting_bar
from perpixel.errors import InputError


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        out: the folder.
        images, objects: how many of each went in.
        written: objects that came out.
        losses: what could not be carried.
        skipped: a sentence for each bad image and object that was left out on reading.
        parts: of each part its images, and its objects of each class.
        together: images that stayed together as near duplicates of others.
    """

    out: Path
    images: int
    objects: int
    written: int
    losses: Losses
    skipped: Sequence[str]
    parts: Mapping[str, tuple[int, Counter[str]]]
    together: int = 0

    def lines(self) -> list[str]:
        """What the command prints."""
        lines = [
            f"{self.images} images and {self.objects} objects read, {self.images} and {self.written} written: {self.out}"
        ]
        return [*lines, *self.losses.lines(), *(f"left out on reading: {sentence}" for sentence in self.skipped)]

    def table(self) -> list[str]:
        """A line a class: its objects in each part; then the classes that a part lacks."""
        names = list(dict.fromkeys(name for _, counts in self.parts.values() for name in counts))
        rows = [["part", *self.parts], ["images", *(str(images) for images, _ in self.parts.values())]]
        rows += [[name, *(str(counts[name]) for _, counts in self.parts.values())] for name in names]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        for part, (_, counts) in self.parts.items():
            lacking = [name for name in names if not counts[name]]
            if lacking:
                lines.append(f"{part} has no object of {', '.join(lacking)}: too few images have one")
        return lines


def convert(
    source: str | Path,
    out: Path,
    form: str,
    images: str | Path | None = None,
    *,
    link: bool = False,
    boxes: bool = False,
    skip_bad: bool = False,
    progress: bool = True,
) -> Converted:
    """Writes a data set in another form.

    Args:
        source, images, skip_bad: as of `open_dataset`.
        out: a folder that does not exist yet, or is empty; it gets everything or nothing.
        form: one of `WRITERS`.
        link: make hard links to the images in place of copies.
        boxes: leave masks out.
        progress: whether to show a bar.

    Raises:
        InputError: bad data, or a folder that holds something.
    """
    _check_empty(out)
    document = Document.read(source, images, skip_bad=skip_bad)
    return _written(document, out, form, {None: list(document.rows)}, link, boxes, progress)


def split(
    source: str | Path,
    out: Path,
    form: str,
    shares: Mapping[str, float],
    images: str | Path | None = None,
    *,
    seed: int = 0,
    link: bool = False,
    boxes: bool = False,
    skip_bad: bool = False,
    progress: bool = True,
) -> Converted:
    """Writes a data set in parts; each class has its share in each, and near duplicates stay in one.

    Args:
        source, out, form, images, link, boxes, skip_bad, progress: as of `convert`.
        shares: each part's share of the images.
        seed: of the order in which images are dealt out.

    Raises:
        InputError: bad data, shares that do not add up to 1, or a folder that holds something.
    """
    _check_empty(out)
    document = Document.read(source, images, skip_bad=skip_bad)
    dataset = document.dataset
    with counting_bar("compare", len(dataset), show=progress) as bar:
        groups = near_duplicates(dataset, bar.advance)
    dealt = deal(groups, _classes(dataset), shares, seed)
    identities = list(document.rows)
    parts: dict[Part, list[int | str]] = {part: [identities[row] for row in rows] for part, rows in dealt.items()}
    together = sum(len(group) for group in groups if len(group) > 1)
    return _written(document, out, form, parts, link, boxes, progress, together)


def _classes(dataset: Dataset) -> list[frozenset[int]]:
    """The labels of the objects of each image."""
    return [frozenset(np.unique(dataset.record(row).labels).tolist()) for row in range(len(dataset))]


def _check_empty(out: Path) -> None:
    if out.absolute() == Path.cwd():  # it is replaced as a whole, and nobody can stand in a folder that is replaced
        raise InputError(f"{out} is the folder you are in: name a new one with --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} holds something already: name a folder that does not exist yet with --out")


def _written(
    document: Document,
    out: Path,
    form: str,
    parts: Mapping[Part, list[int | str]],
    link: bool,
    boxes: bool,
    progress: bool,
    together: int = 0,
) -> Converted:
    """Writes into a folder of another name, which takes its name when it is complete."""
    losses = Losses()
    if len(document.dataset.stuff):
        losses.leave_fields("the data set", ["map of stuff"])
    losses.fields.update({f"{name!r} of a further part of an object": n for name, n in document.extras.lost.items()})
    whole = document.without_shapes(losses) if boxes else document
    place = out.absolute()
    temporary = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        writer = WRITERS[form](temporary, losses, link)
        files = writer.names(whole)
        counts: dict[str, tuple[int, Counter[str]]] = {}
        with counting_bar("write", sum(map(len, parts.values())), show=progress) as bar:
            for part, identities in parts.items():
                portion = whole.only(identities)
                writer.write(portion, part, files)
                for identity in identities:
                    writer.put_image(portion, identity, files[identity], part)
                    bar.advance()
                names = {entry["id"]: entry["name"] for entry in portion.content["categories"]}
                of_class = Counter(names[entry["category_id"]] for entry in portion.annotations)
                counts[part or "all"] = len(identities), of_class
        writer.finish(whole, list(parts))
        if not writer.carries_classes:
            losses.leave_classes(whole)
        if out.exists():
            out.rmdir()
        temporary.replace(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    objects = len(document.annotations)
    return Converted(
        out,
        len(document.images),
        objects,
        objects - sum(losses.objects.values()),
        losses,
        document.dataset.skipped,
        counts,
        together,
    )
