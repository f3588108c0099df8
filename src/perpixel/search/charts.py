"""A line chart as one SVG element."""

import html
import math
from collections.abc import Mapping, Sequence

from perpixel.engine.palette import color, hexadecimal

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 620, 300, 52, 30, 44, 170
MOST_POINTS = 400


def line_chart(
    title: str, lines: Mapping[str, Sequence[tuple[float, float]]], dots: Sequence[tuple[float, float]] = ()
) -> str:
    """Curves over the number of the trial; all text is escaped.

    Args:
        title: above it.
        lines: (trial, value) by name; the legend is in their order.
        dots: single values behind the lines.
    """
    everything = [point for points in (*lines.values(), dots) for point in points]
    last = max((x for x, _ in everything), default=1.0)
    low, high = min((y for _, y in everything), default=0.0), max((y for _, y in everything), default=1.0)
    step = _round_step((high - low) / 5 or 0.2)
    floor = math.floor(low / step + 1e-9) * step
    marks = max(1, math.ceil((high - floor) / step - 1e-9))

    def place(x: float, y: float) -> str:
        across = LEFT + (x - 1) / max(last - 1, 1) * (WIDTH - LEFT - LEGEND)
        up = HEIGHT - BOTTOM - (y - floor) / (marks * step) * (HEIGHT - TOP - BOTTOM)
        return f"{across:.1f},{up:.1f}"

    parts = [f'<text x="{LEFT}" y="16" font-weight="600">{html.escape(title)}</text>']
    for mark in range(marks + 1):
        value = floor + mark * step
        y = place(1.0, value).partition(",")[2]
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - LEGEND}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for x in sorted({1, round((1 + last) / 2), round(last)}):
        across = place(float(x), floor).partition(",")[0]
        parts.append(f'<text x="{across}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - LEGEND) / 2}" y="{HEIGHT - 8}" text-anchor="middle">trial</text>')
    for x, y in thinned(dots):
        across, up = place(x, y).split(",")
        parts.append(f'<circle cx="{across}" cy="{up}" r="1.6" fill="#999" fill-opacity="0.5"/>')
    for number, (name, points) in enumerate(lines.items()):
        stroke = hexadecimal(color(number))
        path = " ".join(place(x, y) for x, y in thinned(points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.8"/>')
        y = TOP + 14 + 17 * number
        x = WIDTH - LEGEND + 12
        parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" stroke="{stroke}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{html.escape(name)}</text>')
    height = max(HEIGHT, TOP + 17 * len(lines) + 14)
    return f'<svg width="{WIDTH}" height="{height}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` of them, evenly spread, the last among them."""
    every = math.ceil(len(points) / MOST_POINTS) or 1
    return list(points[::-every][::-1])


def _round_step(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
