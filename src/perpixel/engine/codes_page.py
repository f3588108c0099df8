"""Figure 5 of MEInst for one's own data: a page with a curve, the numbers, and what the code's components look like."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from perpixel.engine.charts import Axis, Line, line_chart
from perpixel.engine.codes_study import PAPER, CodesStudy, reconstructions
from perpixel.engine.gallery import embedded, write_gallery
from perpixel.engine.lettering import label_font
from perpixel.engine.page import charts, paragraph, picture, table

COLUMNS = 8
CELL, GAP, LEFT, CAPTION = 84, 6, 96, 18
SHOWN_DIMS = (5, 20, 60)
DEFINITIONS = (
    "Error in cells: 1 less the mean IoU of masks before and after, both in cells of the box (the paper's measure). mIoU in the "
    "photo: of the decoded mask, spread over the box, with the mask as it was drawn; no mask predicted through this code can be "
    "better on average."
)


def table_rows(study: CodesStudy) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, a number of numbers each."""
    headings = ["numbers", "variance kept", "error in cells", "paper", "mIoU in the photo", "small", "medium", "large"]
    rows = []
    for kept in study.kept:
        name = "no code" if kept.dim is None else str(kept.dim)
        paper = "-" if kept.dim not in PAPER else f"{100 * PAPER[kept.dim]:.1f} %"
        measures = (kept.photo, kept.small, kept.medium, kept.large)
        parts = (f"{100 * value:.1f} %" if value == value else "-" for value in measures)
        rows.append([name, f"{100 * kept.variance:.1f} %", f"{100 * kept.error:.1f} %", paper, *parts])
    return headings, rows


def write_page(path: Path, study: CodesStudy, title: str, notes: Sequence[str] = ()) -> Path:
    """Writes the page.

    Args:
        path: of the HTML file.
        study: what was measured.
        title: heading.
        notes: lines under the heading: data, sizes.

    Raises:
        InputError: the file cannot be written.
    """
    shown = picture("The mean mask, components and reconstructions", embedded(sheet_of(study)))
    parts = [charts(chart(study)), paragraph(DEFINITIONS), table(*table_rows(study)), shown]
    return write_gallery(path, (), title, notes=notes, sections=parts)


def chart(study: CodesStudy) -> str:
    """The error over the number of numbers, in per cent, beside the paper's figure."""
    with_code = [(kept.dim, kept) for kept in study.kept if kept.dim is not None]
    most = max(dim for dim, _ in with_code)
    paper = [(dim, 100 * error) for dim, error in PAPER.items() if dim <= most]
    lines = [
        Line("in cells of the box", [(dim, 100 * (1 - kept.cells)) for dim, kept in with_code]),
        Line("in the photo", [(dim, 100 * (1 - kept.photo)) for dim, kept in with_code]),
        Line("the paper, COCO, in cells", paper, color="var(--ink)", dots=True),
    ]
    return line_chart("reconstruction error, 1 - mIoU", lines, Axis("numbers a mask"), Axis("per cent"))


def sheet_of(study: CodesStudy) -> Image.Image:
    """The mean mask and the first components, then some masks and what 5, 20 and 60 numbers keep of them."""
    code, size = study.code, study.code.size
    shown = tuple(dim for dim in SHOWN_DIMS if dim <= code.dim)
    components = code.components[0, : COLUMNS - 1].unflatten(1, (size, size))
    rows: list[tuple[str, Float[Tensor, "n s s"]]] = [
        ("mean and first\ncomponents", torch.cat([code.means[:1].unflatten(1, (size, size)), _scaled(components)])),
        ("masks", study.examples.float()),
    ]
    pairs = zip(study.examples.split(1), study.labels.split(1), strict=True)
    decoded = [reconstructions(code, mask, label, shown) for mask, label in pairs]
    rows += [(f"{dim} numbers", torch.stack([one[i] for one in decoded])) for i, dim in enumerate(shown)]
    step = CELL + GAP
    sheet = Image.new("RGB", (LEFT + COLUMNS * step, CAPTION + len(rows) * step), "white")
    captions = ["mean", *(str(i + 1) for i in range(len(components)))]
    pen, font = ImageDraw.Draw(sheet), label_font(12, [*captions, *(name for name, _ in rows)])
    for j, text in enumerate(captions):
        pen.text((LEFT + j * step + 2, 2), text, fill="black", font=font)
    for i, (name, cells) in enumerate(rows):
        top = CAPTION + i * step
        pen.text((4, top + CELL // 3), name, fill="black", font=font)
        for j, values in enumerate(cells):
            pixels = (255 * values.clamp(0, 1)).round().to(torch.uint8).numpy()
            tile = Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(tile, (LEFT + j * step, top))
            pen.rectangle((LEFT + j * step, top, LEFT + j * step + CELL - 1, top + CELL - 1), outline="#888")
    return sheet


def _scaled(components: Float[Tensor, "n s s"]) -> Float[Tensor, "n s s"]:
    """Components with 0 in the middle of the greys."""
    return 0.5 + 0.5 * components / components.abs().amax(dim=(1, 2), keepdim=True)
