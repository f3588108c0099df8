"""Figure 6.3 of thesis 002 for one's own data: a page with two charts and the numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path

from perpixel.engine.charts import Axis, Line, line_chart
from perpixel.engine.color_affinity import PAPER, TAUS, Affinity, AffinityStudy, advice
from perpixel.engine.gallery import write_gallery
from perpixel.engine.page import charts, paragraph, table

SHOWN_TAUS = (0.0, 0.1, 0.2, 0.3, 0.5)
DEFINITIONS = (
    "A pair is right if both pixels belong to the object or neither does, and trusted if its colours are alike by at least tau. "
    "Outline pairs are those with one pixel in the object and one outside."
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
        notes: lines under the heading: data, recipe, size.

    Raises:
        InputError: the file cannot be written.
    """
    headings, rows = table_rows(study)
    lowest = min(affinity.share_right(0.0) for affinity in study.affinities)
    floor = min(int(20 * lowest) / 20, 0.9)
    thesis = Line("thesis, COCO", [(tau, 100 * share) for tau, share in PAPER.items()], color="var(--ink)", dots=True)
    figures = charts(
        chart("right pairs among those trusted", study.affinities, Affinity.share_right, floor, thesis),
        chart("right pairs that are trusted", study.affinities, Affinity.kept, 0.0),
    )
    parts = [paragraph(advice(study.affinities[0])), figures, paragraph(DEFINITIONS), table(headings, rows)]
    return write_gallery(path, (), title, notes=notes, sections=parts)


def chart(
    title: str, affinities: Sequence[Affinity], measure: Callable[[Affinity, float], float], floor: float, *marks: Line
) -> str:
    """One measure over tau in per cent, a line a neighbourhood, the first on top."""
    lines = [
        Line(name_of(affinity), [(tau, 100 * measure(affinity, tau)) for tau in TAUS], thin=place > 0)
        for place, affinity in enumerate(affinities)
    ]
    across = Axis("tau, least likeness of colours", (0.0, 1.0))
    return line_chart(title, [*lines, *marks], across, Axis("per cent", (100 * floor, 100.0)))
