"""The report's figures, one small panel each: metrics, gains of sharing, gains by kind of task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from bigchem.evaluate.protocol.names import with_unit, written
from bigchem.sweep.analysis import captions
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.analysis.claim import name_of
from bigchem.sweep.analysis.conclusions import signed
from bigchem.sweep.analysis.gains import Pool
from bigchem.sweep.report.figures.drawing import (
    COLOURS,
    LIGHT,
    LONGEST,
    STYLE,
    Panel,
    alt_text,
    axes_of,
    finish,
    label_ends,
    points,
    sizes_axis,
)
from bigchem.sweep.report.figures.hover import Mark, marks_of, marks_of_cells
from bigchem.sweep.report.tables import Row, numbers
from bigchem.sweep.scores.aggregate import Cell, Key
from bigchem.sweep.scores.estimate import Estimate, Floats
from bigchem.sweep.scores.records import LOSS, REGIMES, Regime
from bigchem.tasks import Tasks, shipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bigchem.sweep.analysis.fits.curves import Curve
    from bigchem.sweep.analysis.size_means import Line

REGIME_STYLE = {"together": (LIGHT["blue"], "o", "-"), "alone": (LIGHT["orange"], "s", (0, (4, 2)))}
_MARKERS = "osD^vP*X<>hpd"  # as many as make 9 x 13 pairs with the colours
_DOTS = (0, (1, 1.6))


def metric_panel(analysis: Analysis, key: Key) -> Panel:
    """A metric against size, one series per regime, with the fitted curve and its band, if any."""
    drawn = {regime: cells for regime in REGIMES if (cells := analysis.cells_of(key, regime))}
    is_better = any(cell.scale.higher_is_better for cells in drawn.values() for cell in cells)
    direction = "higher is better" if is_better else "lower is better"
    rows: list[Row] = []
    marks: list[Mark] = []
    with mpl.rc_context(STYLE):
        figure, axes = axes_of(f"{key[0]} · {written(key[1])}", direction)
        axes.set_ylabel(with_unit(key[1]))
        for regime, cells in drawn.items():
            rows += _series(axes, regime, cells, 0.985 if len(drawn) > 1 and regime == "together" else 1.0)
            marks += marks_of_cells(axes, f"{key[0]} {written(key[1])}, {regime}", cells)
        sizes = sorted({float(c.parameters) for cells in drawn.values() for c in cells})
        further = [x for x in analysis.beyond if drawn and any((*key, r) in analysis.curves for r in drawn)]
        ends = []
        for regime, cells in drawn.items():
            last = float(cells[-1].parameters), _value(cells[-1])
            if curve := analysis.curves.get((*key, regime)):
                rows += _curve(axes, regime, curve, cells, further)
                if further and further[-1] > last[0]:
                    last = further[-1], float(curve(further[-1]))
            ends.append((*last, regime, REGIME_STYLE[regime][0]))
        sizes_axis(axes, sizes + further, room=0.19)
        if beyond := [x for x in further if x > sizes[-1]]:
            axes.axvspan(sizes[-1] * 1.12, beyond[-1] * 1.25, color=LIGHT["muted"], alpha=0.09, linewidth=0)
        label_ends(figure, axes, ends)
        description = "; ".join(f"{regime}: {alt_text(_points(cells))}" for regime, cells in drawn.items())
        caption = captions.of_metric(name_of(key), drawn, analysis.gains_of(key))
        return finish(figure, file_name(key), key[1], caption, description, rows, marks=marks)


def gain_panel(analysis: Analysis, key: Key) -> Panel | None:
    """The gain of sharing against size, with its line; None if no size was trained both ways."""
    found = [(float(gain.parameters), gain.estimate) for gain in analysis.gains_of(key)]
    if not found:
        return None
    trend = analysis.trends.get(key)
    subtitle = "too few sizes for a slope" if trend is None else f"slope {signed(trend.per_decade)} per decade"
    rows = point_rows("gain", found)
    with mpl.rc_context(STYLE):
        figure, axes = axes_of(f"{key[0]} · gain in {written(key[1])}", subtitle)
        axes.set_ylabel(f"gain in {with_unit(key[1])}")
        points(axes, found, LIGHT["green"], "D")
        if trend is not None and trend.line is not None:
            rows += draw_line(axes, "gain", trend.line, LIGHT["green"])
        sizes_axis(axes, [size for size, _ in found], room=0.14)
        zero_line(axes)
        caption = captions.of_gain(name_of(key), analysis.gains_of(key), trend)
        marks = marks_of(axes, f"{key[0]} {written(key[1])}, gain", found)
        return finish(
            figure, f"{file_name(key)}-gain", key[1], caption, f"{alt_text(found)}; {subtitle}", rows, marks=marks
        )


def pool_panel(analysis: Analysis, pool: Pool) -> Panel:
    """The gains of one kind's tasks against size, and their mean with its line."""
    metrics = analysis.headline if pool.of == "headline" else dict.fromkeys(pool.tasks, LOSS)
    slope = "too few sizes or seeds for a slope" if pool.slope is None else f"slope {signed(pool.slope)} per decade"
    mean = [(float(size), gain) for size, gain in pool.gains.items()]
    rows = point_rows("mean", mean)
    marks: list[Mark] = []
    with mpl.rc_context(STYLE):
        title = f"{pool.kind} tasks · {pool.of} gain"
        figure, axes = axes_of(title, f"mean: {slope}", labels=len(pool.tasks) + 1)
        axes.set_ylabel("gain in loss (nats per token)" if pool.of == "loss" else "gain")
        ends = [draw_task(analysis, (task, metrics[task]), axes, rows, marks) for task in pool.tasks]
        if mean:
            points(axes, mean, LIGHT["ink"], "o", size=5.5)
            marks += marks_of(axes, f"{pool.kind} tasks, mean gain", mean)
            ends.append((mean[-1][0], mean[-1][1].value, "mean", LIGHT["ink"]))
        if pool.means is not None and (line := pool.means.line()) is not None:
            rows += draw_line(axes, "mean", line, LIGHT["ink"])
        room = 0.26 * max(1.0, min(LONGEST, max(map(len, pool.tasks))) / 14)
        sizes_axis(axes, sorted({row["parameters"] for row in rows if row["what"] == "point"}), room=room)
        label_ends(figure, axes, ends)
        zero_line(axes, labels=False)
        caption = f"gain of sharing ({pool.of}) of {pool.kind} tasks: {captions.of_pool(pool)}"
        name = f"{pool.kind}-gain" + ("-loss" if pool.of == "loss" else "")
        return finish(figure, name, pool.of, caption, f"mean {alt_text(mean)}; {slope}", rows, marks=marks)


def draw_task(
    analysis: Analysis, key: Key, axes: Axes, rows: list[Row], marks: list[Mark]
) -> tuple[float, float, str, str]:
    """Draws a task's gains in one metric as a thin line; returns its end, name and colour, for label_ends."""
    found = [(float(gain.parameters), gain.estimate) for gain in analysis.gains_of(key)]
    colour, marker = task_style(key[0], analysis.results.tasks)
    sizes, heights = [size for size, _ in found], [estimate.value for _, estimate in found]
    axes.plot(sizes, heights, marker=marker, color=colour, markersize=4, linewidth=0.9, alpha=0.85)
    rows += point_rows(" ".join(key), found)
    marks += marks_of(axes, f"{key[0]} {written(key[1])}, gain", found)
    return sizes[-1], heights[-1], key[0], colour


def task_style(task: str, tasks: Tasks) -> tuple[str, str]:
    """A task's colour and marker: of the tasks that ship always the same, then in the order of the others."""
    order = [*shipped().scored, *(name for name in tasks if name not in shipped())]
    place = order.index(task)
    return COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]


def file_name(key: Key) -> str:
    """Of a figure of one metric: TASK-METRIC; a package's metric may have any name."""
    return f"{key[0]}-{re.sub(r'[^A-Za-z0-9_.]+', '_', key[1])}"


def _series(axes: Axes, regime: Regime, cells: Sequence[Cell], shift: float) -> list[Row]:
    """Means with intervals, and each seed as a small point if there are several."""
    colour, marker, _ = REGIME_STYLE[regime]
    found = _points(cells)
    points(axes, [(size * shift, estimate) for size, estimate in found], colour, marker)
    seeds = [(float(c.parameters), e) for c in cells if len(c.seeds) > 1 for e in c.seeds.values()]
    if seeds:
        axes.plot(
            [x * shift for x, _ in seeds], [e.value for _, e in seeds], ".", color=colour, alpha=0.35, markersize=4
        )
    return point_rows(regime, found) + point_rows(regime, seeds, "seed")


def _curve(axes: Axes, regime: Regime, curve: Curve, cells: Sequence[Cell], further: Sequence[float]) -> list[Row]:
    """The curve and its band, dotted where nothing was measured. With one degree of freedom there is no band, which
    would fill the figure. The axis may grow for the band by half its height on each side; beyond, the band is cut."""
    colour, _, dash = REGIME_STYLE[regime]
    ends = cells[0].parameters, cells[-1].parameters
    x = np.geomspace(min([ends[0], *further]), max([ends[1], *further]), 121)
    y, (low, high) = curve(x), curve.band(x)
    measured = (x >= ends[0] * 0.999) & (x <= ends[1] * 1.001)
    axes.plot(x[measured], y[measured], color=colour, linestyle=dash, linewidth=1.4)
    if further:
        axes.plot(x, y, color=colour, linestyle=_DOTS, linewidth=1.2)
    if curve.dof > 1 and not np.isnan(low).any():
        bottom, top = axes.get_ylim()
        reach = (top - bottom) / 2
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set_ylim(max(bottom - reach, min(bottom, low.min())), min(top + reach, max(top, high.max())))
    return _curve_rows(regime, x, y, low, high)


def draw_line(axes: Axes, series: str, line: Line, colour: str) -> list[Row]:
    """A line of gains over its sizes, with its 95 % band."""
    x = np.geomspace(line.means.sizes[0], line.means.sizes[-1], 60)
    y, (low, high) = line(x), line.band(x)
    axes.plot(x, y, color=colour, linewidth=1.5)
    if not np.isnan(low).any():
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    return _curve_rows(series, x, y, low, high)


def zero_line(axes: Axes, labels: bool = True) -> None:
    """The line of no effect. labels: say which side helps; without, it ends where the series' own labels begin."""
    last = max(float(np.max(drawn.get_xdata())) for drawn in axes.lines)  # type: ignore[arg-type]
    low, high = np.log(axes.get_xlim())
    end = 1.0 if labels else float((np.log(last) - low) / (high - low))
    axes.axhline(0.0, 0.0, end, color=LIGHT["muted"], linewidth=1.0, linestyle=(0, (2, 2)))
    for text, align, offset in (("helps ↑", "bottom", 2), ("hurts ↓", "top", -2)) if labels else ():
        axes.annotate(
            text,
            (0.995, 0.0),
            (0, offset),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va=align,
            fontsize=8,
            color=LIGHT["muted"],
        )


def _points(cells: Sequence[Cell]) -> list[tuple[float, Estimate]]:
    return [(float(c.parameters), c.estimate) for c in cells if c.estimate is not None]


def _value(cell: Cell) -> float:
    return float("nan") if cell.estimate is None else cell.estimate.value


def point_rows(series: str, found: Sequence[tuple[float, Estimate]], what: str = "point") -> list[Row]:
    """Rows of a figure's CSV."""
    return [{"series": series, "what": what, "parameters": int(x), **numbers(e)} for x, e in found]


def _curve_rows(series: str, x: Floats, y: Floats, low: Floats | None = None, high: Floats | None = None) -> list[Row]:
    ends = [[None if end is None or np.isnan(end[i]) else float(end[i]) for end in (low, high)] for i in range(len(x))]
    return [
        {"series": series, "what": "curve", "parameters": float(x[i]), "value": float(y[i]), "low": a, "high": b}
        for i, (a, b) in enumerate(ends)
    ]
