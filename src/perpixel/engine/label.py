"""Boxes in, masks out: every annotation of a COCO file gets a mask inside its box, and a score that says how far to trust it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from perpixel.data.image import read_image
from perpixel.engine.bar import counting_bar
from perpixel.engine.label_file import BoxFile, ImageEntry
from perpixel.engine.label_masks import Masker, Proposal
from perpixel.engine.label_sheet import Doubtful, write_sheet
from perpixel.errors import InputError

TOO_SMALL = "box"
NOTHING_FOUND = "box, nothing found"


@dataclass
class Labelled:
    """What `label` did.

    Attributes:
        file: the file with its masks.
        output: where it was written.
        sheet: the page to look at.
        masks: how many annotations got a mask, by how.
        unknown: classes that the method does not know.
    """

    file: BoxFile
    output: Path
    sheet: Path | None = None
    masks: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)

    def lines(self) -> list[str]:
        """The account, a sentence a line: what came in, what each annotation got, what was left out and why."""
        total, images = len(self.file.annotations), len(self.file.document["images"])
        told = {TOO_SMALL: "the filled box: too small to draw in", NOTHING_FOUND: "the filled box: nothing found in it"}
        lines = [f"{total} annotations and {images} images in, {total} and {images} out: {self.output}"]
        lines += [f"{count} got {told.get(how, f'a mask by {how}')}" for how, count in self.masks.items()]
        lines += [f"{len(rows)} got none: {why}" for why, rows in self.file.left.items()]
        lines += [f"not read: {sentence}" for sentence in self.file.unreadable]
        if self.unknown:
            lines.append(
                f"classes that the checkpoint does not know, whose masks are those of the class it sees there: "
                f"{', '.join(sorted(self.unknown))}"
            )
        return lines


def label(
    file: BoxFile, masker: Masker, output: Path, report: Path, pictures: int = 400, progress: bool = True
) -> Labelled:
    """Draws a mask for each annotation that wants one, writes the file, then a page with the most doubtful ones first.

    The file is written whole at the end or not at all; a run that was killed starts again.

    Args:
        file: annotations with boxes; gets its masks in place.
        masker: the method.
        output: the file to write; its folder is made where it is missing.
        report: folder of the page.
        pictures: most doubtful masks shown on it; 0 writes no page.
        progress: whether to show a bar.

    Raises:
        InputError: the output is the input, or cannot be written.
    """
    make_folders(file, output, report)
    done = Labelled(file, output)
    doubtful: list[Doubtful] = []
    with counting_bar("label", len(file.images), show=progress) as bar:
        for image in file.images:
            doubtful += _label_image(file, image, masker, done.masks)
            # Only those that will be shown are remembered.
            doubtful = sorted(doubtful, key=lambda one: one.score)[:pictures]
            bar.advance()
    done.unknown = masker.unknown
    file.write(output)
    if pictures:
        done.sheet = write_sheet(report / "sheet.html", file, doubtful, done.lines(), masker.name, progress)
    return done


def make_folders(file: BoxFile, output: Path, report: Path) -> None:
    """Makes the folders that `label` writes to; called before a training too, which must not be for nothing.

    Raises:
        InputError: the output is the input, or a folder cannot be made.
    """
    if output.resolve() == file.path.resolve():
        raise InputError(f"{output} is the file with the boxes: give -o another name")
    for folder in (output.parent, report):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made a folder: {error.strerror}") from error


def _label_image(file: BoxFile, image: ImageEntry, masker: Masker, counts: Counter[str]) -> list[Doubtful]:
    """Gives the annotations of one image their masks."""
    try:
        pixels = read_image(image.path, image.size)
    except InputError as error:
        file.refuse(image, str(error))
        return []
    rows, boxes = file.boxes(image, (pixels.shape[0], pixels.shape[1]))
    if not rows:
        return []
    shown = []
    proposals = masker.propose(pixels, boxes, [file.class_name(row) for row in rows])
    for row, box, proposal in zip(rows, boxes, proposals, strict=True):
        mask, score = in_box(proposal, box, (pixels.shape[0], pixels.shape[1]))
        how = TOO_SMALL if proposal.mask is None else masker.name if score > 0 else NOTHING_FOUND
        counts[how] += 1
        file.put(row, mask, how, score)
        if how != TOO_SMALL:
            shown.append(Doubtful(image, row, tuple(box.tolist()), score, how))
    return shown


def in_box(
    proposal: Proposal, box: Float32[np.ndarray, " 4"], size: tuple[int, int]
) -> tuple[Bool[np.ndarray, "h w"], float]:
    """The proposal cut at its box, and its score: certainty times the share of the box that the mask's own box fills.

    A mask should touch all four sides of its box; one that does not is wrong somewhere. Where there is no mask the box is
    filled, with the score 0.

    Args:
        proposal: of the method.
        box: xyxy inside the image.
        size: (height, width) of the image.
    """
    y, x = touched(box[1::2], size[0]), touched(box[::2], size[1])
    out = np.zeros(size, dtype=bool)
    if proposal.mask is not None:
        out[y, x] = proposal.mask[y, x]
    down, across = np.flatnonzero(out.any(axis=1)), np.flatnonzero(out.any(axis=0))
    if not len(down):
        out[y, x] = True
        return out, 0.0
    filled = (down[-1] + 1 - down[0]) * (across[-1] + 1 - across[0])
    return out, float(proposal.certainty * filled / ((y.stop - y.start) * (x.stop - x.start)))


def touched(ends: Sequence[float] | Float32[np.ndarray, " 2"], pixels: int) -> slice:
    """The pixels of an axis that the interval has a part of; one at least."""
    first = min(int(np.floor(ends[0])), pixels - 1)
    return slice(first, max(min(int(np.ceil(ends[1])), pixels), first + 1))
