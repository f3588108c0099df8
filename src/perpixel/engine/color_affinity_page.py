"""Figure 6.3 of thesis 002 for one's own data: a page with two curves drawn in SVG and the numbers. Nothing is fetched."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path

from perpixel.engine.color_affinity import PAPER, TAUS, Affinity, AffinityStudy, advice
from perpixel.engine.files import write_text

SHOWN_TAUS = (0.0, 0.1, 0.2, 0.3, 0.5)
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b")
WIDTH, HEIGHT, MARGIN = 460, 300, 50

STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2em;color:#222;background:#fff}table{border-collapse:collapse}"
    "th,td{padding:.25em .8em;text-align:right;border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}"
    "svg{margin-right:1.5em}text{font:12px system-ui,sans-serif;fill:#444}.advice{font-size:1.1em;max-width:46em}"
)


def name_of(affinity: Affinity) -> str:
    """Size and dilation, as in table 6.3."""
    return f"{affinity.size}x{affinity.size}, dilation {affinity.dilation}"


def table_rows(study: AffinityStudy) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: each neighbourhood at each of `SHOWN_TAUS`."""
    headings = ["neighbours", "tau", "right among trusted", "right pairs kept", "outline pairs trusted", "thesis, COCO"]
    rows = []
    for affinity in study.affinities:
        for tau in SHOWN_TAUS:
            measures = (affinity.share_right(tau), affinity.kept(tau), affinity.mistaken(tau))
            paper = PAPER.get(tau) if (affinity.size, affinity.dilation) == (3, 2) else None
            theirs = "-" if paper is None else f"{100 * paper:.1f} %"
            rows.append([name_of(affinity), f"{tau:g}", *(f"{100 * m:.1f} %" for m in measures), theirs])
    return headings, rows


def write_page(path: Path, study: AffinityStudy, title: str, notes: Sequence[str] = ()) -> Path:
    """Writes the page.

    Args:
        path: of the HTML file.
        study: what was counted.
        title: heading.
        notes: lines under the figure: data, recipe, size.

    Raises:
        InputError: the file cannot be written.
    """
    headings, rows = table_rows(study)
    head = "".join(f"<th>{cell}</th>" for cell in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    lowest = min(affinity.share_right(0.0) for affinity in study.affinities)
    floor = min(int(20 * lowest) / 20, 0.9)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
        f'<h1>{html.escape(title)}</h1><p class="advice">{html.escape(advice(study.affinities[0]))}</p>'
        + chart("right pairs among those trusted", study.affinities, Affinity.share_right, floor, PAPER)
        + chart("right pairs that are trusted", study.affinities, Affinity.kept, 0.0, {})
        + "".join(f"<p>{html.escape(note)}</p>" for note in notes)
        + "<p>A pair is right if both pixels belong to the object or neither does, and trusted if its colours are alike by at "
        "least tau. Outline pairs are those with one pixel in the object and one outside.</p>"
        + f"<table><tr>{head}</tr>{body}</table></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def chart(
    title: str,
    affinities: Sequence[Affinity],
    measure: Callable[[Affinity, float], float],
    floor: float,
    marks: dict[float, float],
) -> str:
    """An SVG of one measure over tau, a line a neighbourhood; circles stand for the thesis's figures."""

    def place(tau: float, value: float) -> tuple[float, float]:
        x = MARGIN + tau * (WIDTH - MARGIN - 10)
        return x, HEIGHT - 40 - (value - floor) / (1 - floor) * (HEIGHT - 40 - 30)

    parts = [f'<text x="{MARGIN}" y="16" style="font-weight:600">{title}</text>']
    for step in range(6):
        value, tau = floor + step / 5 * (1 - floor), step / 5
        (left, y), (right, _), (x, bottom) = place(0.0, value), place(1.0, value), place(tau, floor)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{tau:g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">tau, least likeness of colours</text>')
    for row, (affinity, color) in enumerate(zip(affinities, COLORS, strict=False)):
        points = " ".join("{:.1f},{:.1f}".format(*place(tau, measure(affinity, tau))) for tau in TAUS)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{2.5 if row == 0 else 1.3}"/>'
        )
        y = HEIGHT - 60 - 16 * (len(affinities) - row) if marks else 46 + 16 * row
        parts.append(
            f'<line x1="{WIDTH - 150}" y1="{y - 4}" x2="{WIDTH - 130}" y2="{y - 4}" stroke="{color}" stroke-width="2"/>'
        )
        parts.append(f'<text x="{WIDTH - 124}" y="{y}">{name_of(affinity)}</text>')
    for tau, value in marks.items():
        x, y = place(tau, max(value, floor))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="#000"/>')
    if marks:
        y = HEIGHT - 60
        parts.append(f'<circle cx="{WIDTH - 140}" cy="{y - 4}" r="4" fill="none" stroke="#000"/>')
        parts.append(f'<text x="{WIDTH - 124}" y="{y}">thesis, COCO</text>')
    return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
