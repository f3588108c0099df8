"""A small directed graph drawn as SVG: sources at the left, the result at the right."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COLUMN, ROW, NODE_HEIGHT, LETTER = 150, 54, 26, 6.6
FILLS = {"input": "#d5e8f7", "operation": "#f5f0da", "aggregation": "#dff0d8", "output": "#f6dcdc"}


@dataclass(frozen=True)
class Node:
    """A box of the drawing.

    Attributes:
        label: its text.
        role: "input", "operation", "aggregation" or "output"; the colour.
    """

    label: str
    role: str


@dataclass(frozen=True)
class Graph:
    """What flows into what.

    Attributes:
        nodes: by name, every node after those that flow into it.
        edges: (from, to); one pair may stand twice.
    """

    nodes: Mapping[str, Node]
    edges: Sequence[tuple[str, str]]

    def __post_init__(self) -> None:
        order = {name: place for place, name in enumerate(self.nodes)}
        for first, second in self.edges:
            if order[first] >= order[second]:
                raise ValueError(f"the edge {first} -> {second} points backwards in the list of nodes")


def columns(graph: Graph) -> dict[str, int]:
    """The column of each node: the longest path that leads to it."""
    found = dict.fromkeys(graph.nodes, 0)
    for name in graph.nodes:
        found[name] = max((found[a] + 1 for a, b in graph.edges if b == name), default=0)
    return found


def places(graph: Graph) -> dict[str, tuple[float, float]]:
    """The middle of each node: columns from left to right; in a column, near the nodes that flow in."""
    column_of = columns(graph)
    rows: dict[str, float] = {}
    for column in range(max(column_of.values(), default=-1) + 1):
        members = [name for name in graph.nodes if column_of[name] == column]
        before = {name: [rows[a] for a, b in graph.edges if b == name] for name in members}
        wanted = {name: sum(before[name]) / len(before[name]) if before[name] else i for i, name in enumerate(members)}
        taken = -1.0
        for name in sorted(members, key=lambda name: wanted[name]):
            taken = max(wanted[name], taken + 1)
            rows[name] = taken
    return {name: (COLUMN * (column_of[name] + 0.5), ROW * (rows[name] + 0.6)) for name in graph.nodes}


def draw(graph: Graph, title: str) -> str:
    """The graph as one SVG element; all text is escaped."""
    place = places(graph)
    widths = {name: max(44.0, LETTER * len(node.label) + 16) for name, node in graph.nodes.items()}
    parts = []
    seen: dict[tuple[str, str], int] = {}
    for first, second in graph.edges:
        bend = 14 * seen.get((first, second), 0)  # the second of two like edges takes its own way
        seen[first, second] = seen.get((first, second), 0) + 1
        (x0, y0), (x1, y1) = place[first], place[second]
        x0, x1 = x0 + widths[first] / 2, x1 - widths[second] / 2 - 6
        middle = (x0 + x1) / 2
        path = f"M{x0:.0f} {y0:.0f} C{middle:.0f} {y0 + bend:.0f} {middle:.0f} {y1 + bend:.0f} {x1:.0f} {y1:.0f}"
        parts.append(f'<path d="{path}" fill="none" stroke="#888" marker-end="url(#arrow)"/>')
    for name, node in graph.nodes.items():
        (x, y), width = place[name], widths[name]
        parts.append(
            f'<rect x="{x - width / 2:.0f}" y="{y - NODE_HEIGHT / 2:.0f}" width="{width:.0f}" height="{NODE_HEIGHT}" rx="6" '
            f'fill="{FILLS[node.role]}" stroke="#777"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle" fill="#222">{html.escape(node.label)}</text>'
        )
    right = max((x + widths[name] / 2 for name, (x, _) in place.items()), default=0) + 10
    bottom = max((y for _, y in place.values()), default=0) + 0.6 * ROW
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#888"/></marker></defs>'
    )
    return (
        f'<svg width="{right:.0f}" height="{bottom:.0f}" viewBox="0 0 {right:.0f} {bottom:.0f}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="system-ui,sans-serif" font-size="12">{arrow}{"".join(parts)}</svg>'
    )
