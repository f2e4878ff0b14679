"""Points of a figure that show their values when hovered over or focused, without a script."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bigchem.sweep.report.tables import estimate_text
from bigchem.sweep.scores.aggregate import Cell, size_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bigchem.sweep.scores.estimate import Estimate

PER_INCH = 72
"""An SVG of matplotlib's is in points."""
RADIUS, LINE, GAP = 3.5, 11.0, 9.0
"""In points: of what reacts to the pointer, little more than a marker, so that neighbours stay within reach; between
lines; from the point to its text."""
LONGEST = 40
"""Characters of a line that is shown; screen readers get all of it."""
MOST_SEEDS = 5
"""With more, their number is shown instead of their values."""


@dataclass(frozen=True)
class Mark:
    """A drawn point: its place in the units of its axes, and its text by line."""

    axes: Axes
    x: float
    y: float
    lines: tuple[str, ...]


def marks_of(axes: Axes, name: str, found: Sequence[tuple[float, Estimate]]) -> list[Mark]:
    """Of gains by size."""
    return [Mark(axes, x, e.value, (name, f"{size_name(x)}: {estimate_text(e, signed=True)}")) for x, e in found]


def marks_of_cells(axes: Axes, name: str, cells: Sequence[Cell]) -> list[Mark]:
    """Of a metric by size, with the values of its seeds."""
    return marks_at(axes, name, [(float(cell.parameters), size_name(cell.parameters), cell) for cell in cells])


def marks_at(axes: Axes, name: str, found: Sequence[tuple[float, str, Cell]]) -> list[Mark]:
    """Of a metric along any axis (place, its name, the scores there), with the values of its seeds."""
    return [
        Mark(axes, x, cell.estimate.value, (name, f"{place}: {estimate_text(cell.estimate)}", *_seeds(cell)))
        for x, place, cell in found
        if cell.estimate is not None
    ]


def _seeds(cell: Cell) -> tuple[str, ...]:
    if len(cell.seeds) < 2:
        return ()
    if len(cell.seeds) > MOST_SEEDS:
        return (f"mean of {len(cell.seeds)} seeds",)
    return (f"seeds: {', '.join(f'{seed.value:.3f}' for seed in cell.seeds.values())}".replace("-", "−"),)


def overlay(figure: Figure, marks: Sequence[Mark]) -> str:
    """SVG to lie over the drawn figure: one group of class "point" per mark, which the page's style shows while it has
    the pointer or the focus."""
    width, height = (float(inches) * PER_INCH for inches in figure.get_size_inches())
    points = []
    for mark in marks:
        right, up = mark.axes.transData.transform((mark.x, mark.y)) * (PER_INCH / figure.dpi)
        points.append(_point(mark.lines, float(right), height - float(up), width))
    return "".join(points)


def _point(lines: Sequence[str], x: float, y: float, width: float) -> str:
    """The text lies above the point, or below it near the upper edge, and begins, is centred or ends there, so that it
    stays inside the figure."""
    anchor = "start" if x < width / 3 else "end" if x > width * 2 / 3 else "middle"
    first = y - GAP - LINE * (len(lines) - 1)
    if first < LINE:
        first = y + GAP + LINE
    shown = (line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in lines)
    spans = "".join(
        f'<tspan x="{x:.1f}" y="{first + LINE * number:.1f}">{html.escape(line)}</tspan>'
        for number, line in enumerate(shown)
    )
    label = html.escape("; ".join(lines))
    return (
        f'<g class="point" tabindex="0" role="img" aria-label="{label}">'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>'
        f'<text text-anchor="{anchor}">{spans}</text></g>\n'
    )
