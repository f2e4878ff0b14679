"""Two figures for a paper: the gain of sharing against size by kind of task, and all metrics at the largest size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bigchem.evaluate.protocol.names import written
from bigchem.sweep.analysis import captions
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.analysis.gains import Pool, gains_of, kind_of
from bigchem.sweep.analysis.trends import constant
from bigchem.sweep.report.drawing import LIGHT, STYLE, Panel, finish, label_ends, points, sizes_axis
from bigchem.sweep.report.figures import draw_line, draw_task, point_rows, zero_line
from bigchem.sweep.report.hover import Mark, marks_of
from bigchem.sweep.report.tables import estimate_text
from bigchem.sweep.scores.aggregate import Cell, Key, size_name
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.scales import second_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, object]
PERCENT = 100.0
OF_ONE_ACTION = ("precision_", "recall_")
"""Metrics of a single action: dozens, which the tables have."""


def claim_figure(analysis: Analysis) -> Panel | None:
    """The gain of each kind's headline metrics against size, side by side on one scale, with the mean, its line and its
    95 % band. None without a pooled gain."""
    pools = [pool for pool in analysis.pools if pool.of == "headline" and pool.gains]
    if not pools:
        return None
    rows: list[Row] = []
    marks: list[Mark] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.9 * len(pools), 3.2), layout="constrained")
        all_axes = figure.subplots(1, len(pools), sharey=True, squeeze=False)[0]
        ends = [_small_multiple(analysis, pool, axes, rows, marks) for pool, axes in zip(pools, all_axes, strict=True)]
        all_axes[0].set_ylabel("gain of sharing (together − alone)")
        for axes, found in zip(all_axes, ends, strict=True):  # after all have drawn: they share the scale
            label_ends(figure, axes, found)
            zero_line(axes, labels=False)
    metrics = "; ".join(f"{task} by {written(analysis.headline[task])}" for pool in pools for task in pool.tasks)
    seen = "; ".join(f"for {pool.kind} tasks {captions.of_pool(pool)}" for pool in pools)
    caption = f"gain of sharing against model size: {seen} ({metrics}; black: mean with its 95 % band)"
    described = "; ".join(f"{pool.kind}: {_in_words(pool)}" for pool in pools)
    return finish(figure, "claim", "headline", caption, described, rows, marks=marks)


def _small_multiple(
    analysis: Analysis, pool: Pool, axes: Axes, rows: list[Row], marks: list[Mark]
) -> list[tuple[float, float, str, str]]:
    """Draws one kind; returns the labels of its series."""
    axes.set_title(f"{pool.kind} tasks", loc="left", fontsize=10, fontweight="bold")
    axes.grid(axis="y", color=LIGHT["muted"], alpha=0.18, linewidth=0.6)
    ends = [draw_task(analysis, (task, analysis.headline[task]), axes, rows, marks) for task in pool.tasks]
    if len(pool.tasks) > 1:
        mean = [(float(size), gain) for size, gain in pool.gains.items()]
        points(axes, mean, LIGHT["ink"], "o", size=5.5)
        ends.append((mean[-1][0], mean[-1][1].value, "mean", LIGHT["ink"]))
        rows += point_rows(f"{pool.kind} mean", mean)
        marks += marks_of(axes, f"{pool.kind} tasks, mean gain", mean)
    if pool.means is not None and (line := pool.means.line()) is not None:
        rows += draw_line(axes, f"{pool.kind} mean", line, LIGHT["ink"])
    sizes_axis(axes, sorted({end[0] for end in ends} | {float(size) for size in pool.gains}), room=0.3)
    return ends


def _in_words(pool: Pool) -> str:
    return ", ".join(f"{gain.value:+.3g} at {size_name(size)}" for size, gain in pool.gains.items())


def forest_figure(analysis: Analysis) -> Panel | None:
    """The gain of every metric at the largest size at which it has one: shares of 1 on the left, errors and losses as
    percent removed on the right. None without gains."""
    bounded, relative = _at_largest(analysis)
    if not bounded and not relative:
        return None
    sides = [
        (found, label) for found, label in ((bounded, "gain"), (relative, "removed of the error or loss, %")) if found
    ]
    with mpl.rc_context(STYLE):
        height = 0.9 + 0.17 * max(len(found) for found, _ in sides)
        figure = Figure(figsize=(4.6 * len(sides), height), layout="constrained")
        rows: list[Row] = []
        marks: list[Mark] = []
        for axes, (found, label) in zip(figure.subplots(1, len(sides), squeeze=False)[0], sides, strict=True):
            _forest(analysis, axes, found, label, rows, marks)
    size = size_name(max(g.parameters for g in analysis.gains))
    estimates = [estimate for _, _, estimate in (*bounded, *relative)]
    caption = captions.of_all(estimates, f"at {size}, or the largest size trained both ways,")
    caption += " (95 % intervals, filled where they exclude 0; blue: cross-domain, orange: single-domain)"
    described = ", ".join(f"{' '.join(key)} {estimate.value:+.3g}" for key, _, estimate in [*bounded, *relative])
    return finish(figure, "forest", "all metrics", caption, described, rows, marks=marks)


Found = tuple[Key, int, Estimate]
"""A metric, the size, and its gain there."""


def _at_largest(analysis: Analysis) -> tuple[list[Found], list[Found]]:
    """Gains of bounded metrics, and of errors and losses as the percentage that sharing removes."""
    largest = {(g.task, g.metric): g for g in sorted(analysis.gains, key=lambda gain: gain.parameters)}
    flat = constant(analysis.cells)
    bounded: list[Found] = []
    relative: list[Found] = []
    for key, gain in largest.items():
        if key in flat or key[1].startswith(OF_ONE_ACTION):
            continue
        if gain.scale.bounded:
            bounded.append((key, gain.parameters, gain.estimate))
        elif (scale := second_scale(gain.scale)) is not None:
            own = [c for c in analysis.cells if (c.task, c.metric, c.parameters) == (*key, gain.parameters)]
            moved = gains_of([cell.on(scale) for cell in own if _measured(cell)])
            relative += [(key, gain.parameters, _percent(one.estimate)) for one in moved]
    return bounded, relative


def _measured(cell: Cell) -> bool:
    return cell.estimate is not None


def _percent(gain: Estimate) -> Estimate:
    """From a gain in logarithms: 1 - together / alone."""
    ends = [None if end is None else PERCENT * (1 - float(np.exp(-end))) for end in (gain.low, gain.high)]
    return Estimate(PERCENT * (1 - float(np.exp(-gain.value))), *ends)


def _forest(
    analysis: Analysis, axes: Axes, found: Sequence[Found], label: str, rows: list[Row], marks: list[Mark]
) -> None:
    axes.axvline(0.0, color=LIGHT["muted"], linewidth=1.0, linestyle=(0, (2, 2)))
    names = []
    for place, (key, size, estimate) in enumerate(found):
        colour = LIGHT["blue" if kind_of(analysis.results.tasks[key[0]]) == "cross-domain" else "orange"]
        if estimate.low is not None and estimate.high is not None:
            axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.3)
        filled = colour if estimate.sign else "white"
        axes.plot(estimate.value, place, "o", color=colour, markerfacecolor=filled, markersize=4)
        names.append(f"{key[0]} {written(key[1])}")
        rows += point_rows(" ".join(key), [(float(size), estimate)])
        text = f"{size_name(size)}: {estimate_text(estimate, signed=True)}"
        marks.append(Mark(axes, estimate.value, float(place), (names[-1], label, text)))
    axes.set_yticks(range(len(found)), names, fontsize=7.5)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel(label)
