"""What a data set holds, counted: classes, sizes, shapes of boxes, objects an image, fields that are missing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from perpixel.data.extras import Extras
from perpixel.data.open import open_dataset
from perpixel.engine import page
from perpixel.engine.gallery import write_gallery
from perpixel.engine.palette import color, hexadecimal

SIDES = (0, 8, 16, 32, 64, 96, 128, 256, 512)
"""Where kinds of sizes begin, in pixels: square roots of box areas; 32 and 96 are COCO's borders."""
RATIOS = (0.0, 0.2, 1 / 3, 0.5, 0.8, 1.25, 2.0, 3.0, 5.0)
"""Where kinds of shapes begin: width over height of a box."""
COUNTS = (0, 1, 2, 3, 5, 9, 17, 33, 65, 129, 257)
"""Where kinds of images begin: objects an image."""


@dataclass(frozen=True)
class Stats:
    """Counts of a data set; crowds are in none but their own.

    Attributes:
        name: the source.
        images, objects, crowds, empty: how many there are; empty images have no object.
        masks, keypoints: objects with a mask, with a labelled keypoint.
        classes: of each class its objects, the images that have one, and its objects below 32 x 32 pixels, up to 96 x 96, above.
        sides: objects by the square root of their box's area, as `SIDES` has it.
        ratios: objects by width over height of their box, as `RATIOS` has it.
        counts: images by their number of objects, as `COUNTS` has it.
        sizes: images of each (height, width), the most frequent first.
        fields: of each field of images and of objects, how many have it and how many there are.
        skipped: a sentence for each bad image and object, which are in no count.
    """

    name: str
    images: int
    objects: int
    crowds: int
    empty: int
    masks: int
    keypoints: int
    classes: Mapping[str, tuple[int, int, int, int, int]]
    sides: Int[np.ndarray, " s"]
    ratios: Int[np.ndarray, " r"]
    counts: Int[np.ndarray, " c"]
    sizes: Mapping[tuple[int, int], int]
    fields: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def numbers(self) -> dict[str, int]:
        """The single counts by name."""
        return {
            "images": self.images,
            "objects": self.objects,
            "classes": len(self.classes),
            "crowds": self.crowds,
            "images without objects": self.empty,
            "objects with a mask": self.masks,
            "objects with keypoints": self.keypoints,
        }

    def histograms(self) -> dict[str, list[tuple[str, int]]]:
        """Counts by kind, under their headings."""
        return {
            "size of objects (square root of the box's area, pixels)": _kinds(SIDES, self.sides),
            "shape of objects (width / height)": _kinds(RATIOS, self.ratios),
            "objects an image": _kinds(COUNTS, self.counts, whole=True),
        }

    def text(self) -> str:
        """Everything as lines of a terminal."""
        lines = [self.name, *(f"  {count:>8} {name}" for name, count in self.numbers().items())]
        width = max([5, *map(len, self.classes)])
        lines += ["", f"{'class':<{width}}   objects    images     small    medium     large"]
        ordered = sorted(self.classes.items(), key=lambda item: -item[1][0])
        lines += [f"{name:<{width}}{''.join(f'{count:>10}' for count in counts)}" for name, counts in ordered]
        for title, rows in self.histograms().items():
            lines += ["", title, *(f"  {name:>12} {count:>8}" for name, count in rows if count)]
        for what, fields in self.fields.items():
            lines += ["", f"fields of {what}: present, missing"]
            lines += [f"  {name:<20} {found:>8} {total - found:>8}" for name, (found, total) in fields.items()]
        return "\n".join([*lines, *(f"left out: {sentence}" for sentence in self.skipped)])


def measure(source: str | Path, images: str | Path | None = None, *, skip_bad: bool = False) -> Stats:
    """Counts what a data set holds; no image is decoded. Arguments and errors are those of `open_dataset`."""
    extras = Extras()
    dataset = open_dataset(source, images, skip_bad=skip_bad, extras=extras)
    classes = np.zeros((len(dataset.classes), 5), dtype=np.int64)
    boxes, counts = [], []
    crowds = masks = keypoints = 0
    for index in range(len(dataset)):
        record = dataset.record(index)
        single = ~record.crowd
        labels, box = record.labels[single], record.boxes[single]
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        kind = np.digitize(area, (32**2, 96**2))
        np.add.at(classes[:, 0], labels, 1)
        np.add.at(classes[:, 1], np.unique(labels), 1)
        np.add.at(classes.reshape(-1), 5 * labels + 2 + kind, 1)
        boxes.append(box)
        counts.append(len(box))
        crowds += int(record.crowd.sum())
        masks += sum(record.shapes[row] is not None for row in np.flatnonzero(single))
        if record.keypoints is not None:
            keypoints += int((record.keypoints[single][..., 2] > 0).any(1).sum())
    box = np.concatenate(boxes)
    width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    shapes, frequency = np.unique(dataset.sizes, axis=0, return_counts=True)
    order = np.argsort(-frequency, kind="stable")
    totals = {"images": (extras.image_fields, len(dataset)), "objects": (extras.object_fields, len(box) + crowds)}
    return Stats(
        name=dataset.name,
        images=len(dataset),
        objects=len(box),
        crowds=crowds,
        empty=counts.count(0),
        masks=masks,
        keypoints=keypoints,
        classes={name: _five(row) for name, row in zip(dataset.classes, classes.tolist(), strict=True)},
        sides=_histogram(np.sqrt(width * height), SIDES),
        ratios=_histogram(width / height.clip(1e-6), RATIOS),
        counts=_histogram(np.array(counts, dtype=np.float64), COUNTS),
        sizes={(int(shapes[row][0]), int(shapes[row][1])): int(frequency[row]) for row in order},
        fields={
            what: {name: (found, max(found, total)) for name, found in sorted(fields.items())}
            for what, (fields, total) in totals.items()
            if fields
        },
        skipped=tuple(dataset.skipped),
    )


def sections(stats: Stats) -> list[str]:
    """The counts as parts of a page."""
    most = max([1, *(counts[0] for counts in stats.classes.values())])
    rows = [
        [
            page.Cell(name, color=hexadecimal(color(label))),
            page.Cell(str(counts[0]), counts[0], counts[0] / most),
            *map(page.whole, counts[1:]),
        ]
        for label, (name, counts) in enumerate(stats.classes.items())
    ]
    headings = ["class", "objects", "images", "below 32²", "below 96²", "larger"]
    parts = [
        page.section("What is in it", page.numbers({name: page.whole(n) for name, n in stats.numbers().items()}, {})),
        page.section("Classes", page.table(headings, rows)),
    ]
    for title, kinds in stats.histograms().items():
        parts.append(page.section(title[0].upper() + title[1:], _bars("from .. to", kinds)))
    sizes = [(f"{width} x {height}", count) for (height, width), count in list(stats.sizes.items())[:20]]
    parts.append(page.section("Size of images (the 20 most frequent, width x height)", _bars("pixels", sizes)))
    for what, fields in stats.fields.items():
        cells = [[name, page.whole(found), page.whole(total - found)] for name, (found, total) in fields.items()]
        parts.append(page.section(f"Fields of {what}", page.table(["field", "present", "missing"], cells)))
    if stats.skipped:
        parts.append(
            page.section("Left out", page.table(["why"], [[sentence] for sentence in stats.skipped], look="sentences"))
        )
    return parts


def write_page(stats: Stats, path: Path) -> Path:
    """Writes the counts as one self-contained page."""
    return write_gallery(path, [], f"perpixel: {Path(stats.name).name}", notes=[stats.name], sections=sections(stats))


def _bars(heading: str, kinds: list[tuple[str, int]]) -> str:
    most = max([1, *(count for _, count in kinds)])
    rows = [[page.Cell(name, row), page.Cell(str(n), n, n / most)] for row, (name, n) in enumerate(kinds)]
    return page.table([heading, "number"], rows)


def _histogram(values: Float[np.ndarray, " n"], begins: tuple[float | int, ...]) -> Int[np.ndarray, " k"]:
    return np.bincount(np.digitize(values, begins[1:]), minlength=len(begins))


def _kinds(
    begins: tuple[float | int, ...], counts: Int[np.ndarray, " k"], whole: bool = False
) -> list[tuple[str, int]]:
    """The name of each kind with its count."""
    names = []
    for begin, end in zip(begins, (*begins[1:], None), strict=True):
        if whole:
            last = None if end is None else int(end) - 1
            names.append(
                f"{begin:g}" if last == begin else f"{begin:g} and more" if last is None else f"{begin:g} to {last}"
            )
        else:
            names.append(f"{begin:.3g} and more" if end is None else f"{begin:.3g} to {end:.3g}")
    return list(zip(names, counts.tolist(), strict=True))


def _five(row: list[int]) -> tuple[int, int, int, int, int]:
    objects, images, small, medium, large = row
    return objects, images, small, medium, large
