"""Parts of a page (`gallery.html`): sections, numbers, tables, folded text. Every text is escaped here and nowhere else."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Look = Literal["numeric", "sentences", "texts"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table, or one number.

    Attributes:
        text: what is shown.
        value: what the table is sorted by; None sorts by the text.
        bar: length of a bar before the text, 0..1.
        color: of CSS, a swatch before the text.
        look: "good" or "bad".
    """

    text: str
    value: float | int | None = None
    bar: float | None = None
    color: str | None = None
    look: str = ""


def percent(value: float | None, bar: bool = False) -> Cell:
    """A fraction in per cent; a dash for -1 and None, which stand for what cannot be measured."""
    if value is None or value < 0:
        return Cell("–", -1.0)
    return Cell(f"{100 * value:.1f}", value, value if bar else None)


def whole(value: int) -> Cell:
    """A count."""
    return Cell(str(value), value)


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it; nothing where nothing stands below."""
    found = "".join(parts)
    return f"<section><h2>{html.escape(title)}</h2>{found}</section>" if found else ""


def paragraph(text: str) -> str:
    """A sentence or more."""
    return f'<p class="says">{html.escape(text)}</p>'


def numbers(cells: Mapping[str, Cell], meanings: Mapping[str, str], main: str = "") -> str:
    """Numbers in boxes, by name.

    Args:
        cells: the numbers.
        meanings: what some of the names mean.
        main: the name of the one that stands out.
    """
    boxes = []
    for name, cell in cells.items():
        kind = "number main" if name == main else "number"
        title = html.escape(meanings.get(name, name), quote=True)
        boxes.append(
            f'<div class="{kind}" title="{title}"><b>{html.escape(cell.text)}</b><span>{html.escape(name)}</span></div>'
        )
    return f'<div class="numbers">{"".join(boxes)}</div>' if boxes else ""


def table(headings: Sequence[str], rows: Iterable[Sequence[Cell | str]], look: Look = "numeric") -> str:
    """A table that a click on a heading sorts.

    Args:
        headings: of the columns.
        rows: their cells; the first column is text.
        look: numeric columns end at the right; of sentences the last column breaks into lines, of texts all
            but the first.
    """
    head = "".join(
        f'<th scope="col"><button type="button" title="sort by this column">{html.escape(h)}</button></th>'
        for h in headings
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    inside = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="tablebox" tabindex="0"><table class="sortable {look}">{inside}</table></div>'


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        cell = Cell(cell)
    value = "" if cell.value is None else f' data-value="{cell.value:.6g}"'
    look = f' class="{html.escape(cell.look)}"' if cell.look else ""
    before = ""
    if cell.color is not None:
        before = f'<span class="swatch" style="background:{html.escape(cell.color)}"></span>'
    if cell.bar is not None:
        before += (
            f'<span class="track"><span class="bar" style="width:{62 * min(max(cell.bar, 0), 1):.0f}px"></span></span>'
        )
    return f"<td{value}{look}>{before}{html.escape(cell.text)}</td>"


def side_by_side(table: str, chart: str) -> str:
    """A table and a chart, beside each other where there is room."""
    return f'<div class="side">{table}{chart}</div>' if chart else table


def charts(*figures: str) -> str:
    """Charts, as many in a row as there is room for."""
    found = "".join(figures)
    return f'<div class="charts">{found}</div>' if found else ""


def drawing(title: str, svg: str) -> str:
    """An element of SVG on white, whatever the page's look: as wide as the page at most, but on a narrow page it scrolls."""
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    return f'<figure class="drawing">{caption}<div tabindex="0">{svg}</div></figure>'


def picture(title: str, address: str) -> str:
    """The same for the image at an address."""
    return drawing(title, f'<img alt="{html.escape(title, quote=True)}" src="{html.escape(address, quote=True)}">')


def folded(summary: str, *parts: str, opened: bool = False) -> str:
    """What is shown on a click."""
    return f"<details{' open' if opened else ''}><summary>{html.escape(summary)}</summary>{''.join(parts)}</details>"


def code(text: str) -> str:
    """Text as it is, in letters of one width."""
    return f'<pre tabindex="0">{html.escape(text)}</pre>'


def facts(values: Mapping[str, str]) -> str:
    """Names and what they are."""
    return f"<dl>{''.join(f'<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>' for k, v in values.items())}</dl>"


def links(ways: Sequence[tuple[str, str]], here: str = "") -> str:
    """Links to other pages, by address and name; the one that is shown is no link."""
    found = "".join(
        f" <b>{html.escape(name)}</b>"
        if address == here
        else f' <a href="{html.escape(address)}">{html.escape(name)}</a>'
        for address, name in ways
    )
    return f"<nav>{found}</nav>" if found else ""
