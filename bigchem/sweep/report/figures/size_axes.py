"""Metrics against other measures of a model's size: parameters without embeddings, training FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.ticker import LogLocator, NullLocator

from bigchem.evaluate.protocol.names import with_unit, written
from bigchem.sweep.analysis import captions
from bigchem.sweep.analysis.claim import name_of
from bigchem.sweep.report.figures.by_size import REGIME_STYLE, file_name
from bigchem.sweep.report.figures.drawing import STYLE, Panel, axes_of, finish, label_ends, points
from bigchem.sweep.report.figures.hover import Mark, marks_at
from bigchem.sweep.report.tables import numbers
from bigchem.sweep.scores.aggregate import size_name
from bigchem.sweep.scores.records import REGIMES, SIZE_AXES, Regime, SizeAxis

if TYPE_CHECKING:
    from bigchem.sweep.analysis.analyse import Analysis
    from bigchem.sweep.scores.aggregate import Cell, Key

COLUMNS = ("series", "x", "parameters", "value", "low", "high")


def size_axis_figures(analysis: Analysis, axis: SizeAxis) -> Iterator[Panel]:
    """One for each drawn metric: its means against the mean measure of their runs."""
    return (_panel(analysis, key, axis) for key in analysis.shown)


def _panel(analysis: Analysis, key: Key, axis: SizeAxis) -> Panel:
    name = SIZE_AXES[axis]
    rows = []
    marks: list[Mark] = []
    places: dict[Regime, list[captions.Place]] = {}
    with mpl.rc_context(STYLE):
        figure, axes = axes_of(f"{key[0]} · {written(key[1])}", f"against {name}")
        axes.set_ylabel(with_unit(key[1]))
        ends = []
        for regime in REGIMES:
            colour, marker, dash = REGIME_STYLE[regime]
            cells = analysis.cells_of(key, regime)
            found = sorted(((_place(analysis, cell, axis), cell) for cell in cells), key=lambda pair: pair[0])
            named = [(x, _named(x, axis), cell) for x, cell in found]
            marks += marks_at(axes, f"{name_of(key)}, {regime}", named)
            places[regime] = [(place, cell) for _, place, cell in named]
            drawn = [(x, cell.estimate) for x, cell in found if cell.estimate is not None]
            if drawn:
                axes.plot([x for x, _ in drawn], [e.value for _, e in drawn], color=colour, linestyle=dash, linewidth=1)
                points(axes, drawn, colour, marker)
                ends.append((drawn[-1][0], drawn[-1][1].value, regime, colour))
            rows += [
                {"series": regime, "x": x, "parameters": cell.parameters, **numbers(cell.estimate)} for x, cell in found
            ]
        axes.set_xscale("log")
        low, high = (end(row["x"] for row in rows) for end in (min, max))
        axes.set_xlim(low / 1.25, high * 1.25 * (high / low * 1.5) ** 0.24)
        axes.xaxis.set_major_locator(LogLocator())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(f"{name} (log scale)")
        label_ends(figure, axes, ends)
    caption = captions.of_measure(name_of(key), name, places)
    described = "; ".join(f"{row['series']}: {row['value']:.4g} at {row['x']:.3g}" for row in rows)
    return finish(figure, f"{file_name(key)}-{axis}", key[1], caption, described, rows, COLUMNS, marks)


def _named(x: float, axis: SizeAxis) -> str:
    return captions.flops_name(x) if axis == "flops" else size_name(x)


def _place(analysis: Analysis, cell: Cell, axis: SizeAxis) -> float:
    """The mean over the cell's runs."""
    runs = {
        id(s.run): s.run
        for s in analysis.results.scores
        if (s.task, s.metric, s.run.regime, s.run.parameters) == (cell.task, cell.metric, cell.regime, cell.parameters)
    }
    return fmean(run.measure(axis) or 0 for run in runs.values())
