"""Figure 5 of MEInst for one's own data: a page with a curve, the numbers, and what the code's components look like."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from perpixel.engine.codes_study import PAPER, CodesStudy, reconstructions
from perpixel.engine.color_affinity_page import HEIGHT, MARGIN, STYLE, WIDTH
from perpixel.engine.files import write_text
from perpixel.engine.lettering import label_font

COLUMNS = 8
CELL, GAP, LEFT, CAPTION = 84, 6, 96, 18
SHOWN_DIMS = (5, 20, 60)
LINES = (
    ("in cells of the box", "#1f77b4", lambda kept: 1 - kept.cells),
    ("in the photo", "#d62728", lambda kept: 1 - kept.photo),
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
        notes: lines under the figure: data, sizes.

    Raises:
        InputError: the file cannot be written.
    """
    headings, rows = table_rows(study)
    head = "".join(f"<th>{cell}</th>" for cell in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    stored = io.BytesIO()
    picture(study).save(stored, "PNG", optimize=True)
    drawn = base64.b64encode(stored.getvalue()).decode("ascii")
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
        f"<h1>{html.escape(title)}</h1>{chart(study)}"
        + "".join(f"<p>{html.escape(note)}</p>" for note in notes)
        + "<p>Error in cells: 1 less the mean IoU of masks before and after, both in cells of the box (the paper's measure). "
        "mIoU in the photo: of the decoded mask, spread over the box, with the mask as it was drawn; no mask predicted through "
        "this code can be better on average.</p>"
        + f"<table><tr>{head}</tr>{body}</table>"
        + f'<p><img alt="The mean mask, components and reconstructions" src="data:image/png;base64,{drawn}"></p></html>\n'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def chart(study: CodesStudy) -> str:
    """An SVG of the error over the number of numbers; the circle is the paper's figure."""
    with_code = [kept for kept in study.kept if kept.dim is not None]
    most = float(max(kept.dim or 0 for kept in with_code))
    highest = max(0.05, *(measure(kept) for kept in with_code for _, _, measure in LINES))

    def place(dim: int | float, error: float) -> tuple[float, float]:
        x = MARGIN + dim / most * (WIDTH - MARGIN - 20)
        return x, HEIGHT - 40 - error / highest * (HEIGHT - 40 - 30)

    parts = [f'<text x="{MARGIN}" y="16" style="font-weight:600">reconstruction error, 1 - mIoU</text>']
    for step in range(6):
        (left, y), (right, _) = place(0.0, highest * step / 5), place(most, highest * step / 5)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * highest * step / 5:.1f} %</text>')
    for kept in with_code:
        x, bottom = place(kept.dim or 0, 0.0)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{kept.dim}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">numbers a mask</text>')
    for row, (name, color, measure) in enumerate(LINES):
        points = " ".join("{:.1f},{:.1f}".format(*place(kept.dim or 0, measure(kept))) for kept in with_code)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        y = 46 + 16 * row
        parts.append(
            f'<line x1="{WIDTH - 170}" y1="{y - 4}" x2="{WIDTH - 150}" y2="{y - 4}" stroke="{color}" stroke-width="2"/>'
        )
        parts.append(f'<text x="{WIDTH - 144}" y="{y}">{name}</text>')
    for dim, error in PAPER.items():
        if dim <= most:
            x, y = place(dim, error)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="#000"/>')
            parts.append(f'<circle cx="{WIDTH - 160}" cy="74" r="4" fill="none" stroke="#000"/>')
            parts.append(f'<text x="{WIDTH - 144}" y="78">the paper, COCO, in cells</text>')
    label = "Reconstruction error over the number of numbers"
    return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def picture(study: CodesStudy) -> Image.Image:
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
