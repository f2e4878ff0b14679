"""Metrics against an axis of the sweep, one line per size and regime."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.ticker import NullLocator

from bigchem.evaluate.protocol.names import with_unit, written
from bigchem.sweep.analysis import captions
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.analysis.axes import AxisScores
from bigchem.sweep.analysis.claim import name_of
from bigchem.sweep.report.figures.drawing import COLOURS, STYLE, Panel, axes_of, finish, label_ends, points
from bigchem.sweep.report.figures.hover import Mark, marks_at
from bigchem.sweep.report.tables import AXES_COLUMNS, Row, axis_rows
from bigchem.sweep.scores.aggregate import Cell, Key, size_name
from bigchem.sweep.scores.records import Regime

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: dict[Regime, tuple[str, object]] = {"together": ("o", "-"), "alone": ("s", (0, (4, 2)))}
ROOM = 0.26
"""Share of the width kept free for the labels."""


def axis_figures(analysis: Analysis, scores: AxisScores) -> Iterator[Panel]:
    """One for each drawn metric."""
    known = {(c.task, c.metric) for cells in scores.cells.values() for c in cells if c.estimate is not None}
    return (_panel(scores, key) for key in analysis.shown if key in known)


def _panel(scores: AxisScores, key: Key) -> Panel:
    """Each size has a colour; models trained together have a solid line, alone a dashed one."""
    lines: dict[tuple[int, Regime], list[tuple[str, Cell]]] = {}
    for value, cells in scores.cells.items():
        for cell in cells:
            if (cell.task, cell.metric) == key and cell.estimate is not None:
                lines.setdefault((cell.parameters, cell.regime), []).append((value, cell))
    numbers = scores.numbers
    places = numbers or {value: float(place) for place, value in enumerate(scores.cells)}
    sizes = sorted({size for size, _ in lines})
    with mpl.rc_context(STYLE):
        is_better = any(cell.scale.higher_is_better for line in lines.values() for _, cell in line)
        better = "higher is better" if is_better else "lower is better"
        figure, axes = axes_of(f"{key[0]} · {written(key[1])}", better, labels=len(lines))
        axes.set_ylabel(with_unit(key[1]))
        ends = []
        marks: list[Mark] = []
        for (size, regime), line in sorted(lines.items(), key=lambda item: item[0][0]):
            colour, (marker, dash) = COLOURS[sizes.index(size) % len(COLOURS)], STYLES[regime]
            found = [(places[value], cell.estimate) for value, cell in line if cell.estimate is not None]
            axes.plot([x for x, _ in found], [e.value for _, e in found], color=colour, linestyle=dash, linewidth=1.2)
            points(axes, found, colour, marker, size=4)
            label = f"{key[0]} {written(key[1])}, {size_name(size)} {regime}"
            marks += marks_at(axes, label, [(places[value], f"{scores.axis} = {value}", cell) for value, cell in line])
            ends.append((found[-1][0], found[-1][1].value, f"{size_name(size)} {regime}", colour))
        _axis(axes, scores.axis, places, numbers is not None)
        label_ends(figure, axes, ends)
    by_size = sorted(lines.items(), key=lambda item: item[0][0])
    named = {f"{size_name(size)} {regime}": line for (size, regime), line in by_size}
    caption = captions.of_axis(name_of(key), scores.axis, named)
    described = "; ".join(
        f"{size_name(size)} {regime}: " + ", ".join(f"{c.estimate.value:.4g} at {v}" for v, c in line if c.estimate)
        for (size, regime), line in lines.items()
    )
    rows: list[Row] = [row for row in axis_rows([scores]) if (row["task"], row["metric"]) == key]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{scores.axis}-{key[0]}-{key[1]}")
    return finish(figure, f"axis-{name}", key[1], caption, described, rows, AXES_COLUMNS, marks)


def _axis(axes: Axes, name: str, places: dict[str, float], is_number: bool) -> None:
    """Numbers on a log axis, other values evenly spaced."""
    low, high = min(places.values()), max(places.values())
    if is_number:
        axes.set_xscale("log")
        low, high = low / 1.15, high * 1.15
        axes.set_xlim(low, high * (high / low) ** (ROOM / (1 - ROOM)))
    else:
        low, high = low - 0.3, high + 0.3
        axes.set_xlim(low, high + (high - low) * ROOM / (1 - ROOM))
    axes.set_xticks(list(places.values()), list(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{name} (log scale)" if is_number else name)
