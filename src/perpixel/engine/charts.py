"""Charts of a page: lines in plain SVG and a legend that wraps on a phone; colours follow the page's light or dark look."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 8, 38
COLORS = 8
"""Colours of lines that the page defines, ``--line0`` and so on."""
MOST_POINTS = 400
"""Of a line: neighbours are averaged where there are more."""

Point = tuple[float | int, float | int]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend.
        points: x and y; what is not finite is left out.
        color: of CSS; None takes the page's, by the line's position among all.
        thin: whether it is drawn behind the others, as one of many.
        dots: whether its points stand alone, not joined.
    """

    name: str
    points: Sequence[Point]
    color: str | None = None
    thin: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        name: written beside it.
        limits: its ends; None takes what the lines need.
        log: whether equal factors have equal distances.
    """

    name: str
    limits: Point | None = None
    log: bool = False


def line_chart(title: str, lines: Sequence[Line], across: Axis, up: Axis) -> str:
    """A figure of HTML with the lines in the given order, the first on top.

    Args:
        title: its caption.
        lines: those without a point are left out; without any line there is no figure.
        across, up: the axes.
    """
    known = [(number, line, _drawn(line, up.log)) for number, line in enumerate(lines)]
    drawn = [(number, line, points) for number, line, points in known if points]
    if not drawn:
        return ""
    to_x = _Scale(across, [x for *_, points in drawn for x, _ in points], float(LEFT), float(WIDTH - RIGHT))
    to_y = _Scale(up, [y for *_, points in drawn for _, y in points], float(HEIGHT - BOTTOM), float(TOP))
    parts, keys = [_grid(to_x, to_y, across.name, up.name)], []
    for number, line, points in drawn:
        color = html.escape(line.color or f"var(--line{number % COLORS})")
        # Beyond the page's own colours, dashes tell lines apart.
        dash = "" if line.color or number < COLORS else ' stroke-dasharray="6 3"'
        look = f'stroke="{color}" stroke-width="{1.2 if line.thin else 2.2}" opacity="{0.65 if line.thin else 1}"{dash}'
        name = f"<title>{html.escape(line.name)}</title>"
        if line.dots or len(points) == 1:
            radius = 2 if line.dots else 4
            circles = "".join(f'<circle cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="{radius}"/>' for x, y in points)
            parts.append(f'<g fill="{color}">{name}{circles}</g>')
        else:
            path = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in points)
            parts.append(f'<polyline points="{path}" {look}>{name}</polyline>')
        keys.append(f'<span><i style="background:{color}"></i>{html.escape(line.name)}</span>')
    parts[1:] = parts[:0:-1]
    legend = f'<div class="legend">{"".join(keys)}</div>' if len(lines) > 1 else ""
    label = html.escape(title, quote=True)
    return (
        f'<figure class="chart"><figcaption>{html.escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>{legend}</figure>'
    )


class _Scale:
    """Numbers of an axis as places on the picture, and the round numbers that are written beside it."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        low, high = map(float, axis.limits or (min(values), max(values)))
        if low == high:
            low, high = (low / 2, high * 2) if axis.log and low > 0 else (low - 0.5, high + 0.5)
        self.start, self.end = start, end
        self.log = axis.log
        self.ticks = _decades(low, high) if axis.log else _round_numbers(low, high)
        if axis.limits is None and not axis.log and start > end:  # upwards, lines end at round numbers
            step = self.ticks[1] - self.ticks[0]
            low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
            self.ticks = _round_numbers(low, high)
        self.low, self.high = (math.log10(low), math.log10(high)) if axis.log else (low, high)

    def __call__(self, value: float) -> float:
        place = math.log10(value) if self.log else value
        share = (min(max(place, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _round_numbers(low: float, high: float, wanted: int = 5) -> list[float]:
    """About as many multiples of 1, 2 or 5 times a power of ten between the two."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten between the two, with 2 and 5 times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 2, 5)
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


def _grid(to_x: _Scale, to_y: _Scale, across: str, up: str) -> str:
    parts = []
    for value in to_x.ticks:
        x = to_x(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_written(value)}</text>')
    for value in to_y.ticks:
        y = to_y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_written(value)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(across)}</text>'
    )
    turned = f'x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})"'
    return "".join([*parts, f"<text {turned}>{html.escape(up)}</text>"])


def _written(value: float) -> str:
    """A tick's number, short."""
    return f"{value / 1000:g}k" if abs(value) >= 10000 and value % 100 == 0 else f"{value:g}"


def _drawn(line: Line, log: bool) -> list[tuple[float, float]]:
    finite = [
        (float(x), float(y)) for x, y in line.points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)
    ]
    return finite if line.dots else _thinned(finite)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS`, each the mean of as many neighbours."""
    if len(points) <= MOST_POINTS:
        return points
    size = -(-len(points) // MOST_POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
