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
from bigchem.sweep.analysis.gains import KINDS, Of, Pool, gains_of, kind_of
from bigchem.sweep.analysis.trends import constant
from bigchem.sweep.report.figures.by_size import draw_line, draw_task, point_rows, task_style, zero_line
from bigchem.sweep.report.figures.drawing import LIGHT, STYLE, Panel, finish, label_ends, points, sizes_axis
from bigchem.sweep.report.figures.hover import Mark, marks_of
from bigchem.sweep.report.tables import estimate_text
from bigchem.sweep.scores.aggregate import Cell, Key, size_name
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import LOSS
from bigchem.sweep.scores.scales import second_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, object]
PERCENT = 100.0
OF_ONE_ACTION = ("precision_", "recall_")
"""Metrics of a single action: dozens, which the tables have."""


MEASURES: dict[Of, tuple[str, str]] = {"headline": ("metrics", "share of 1"), "loss": ("losses", "nats per token")}
"""What a pool is of, and the unit."""


def claim_figure(analysis: Analysis) -> Panel | None:
    """The gain of sharing against size: a column for each kind of task, a row for headline metrics and one for losses,
    each on one scale, with the mean, its line and its 95 % band. None without a pooled gain.

    A single kind has both beside each other.
    """
    pools = [pool for pool in analysis.pools if pool.gains]
    if not pools:
        return None
    kinds = [kind for kind in KINDS if any(pool.kind == kind for pool in pools)]
    measures = [of for of in MEASURES if any(pool.of == of for pool in pools)]
    one_kind = len(kinds) == 1
    shape = (1, len(measures)) if one_kind else (len(measures), len(kinds))
    rows: list[Row] = []
    marks: list[Mark] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.9 * shape[1], 3.2 * shape[0]), layout="constrained")
        grid = figure.subplots(*shape, sharey=False if one_kind else "row", squeeze=False)
        if one_kind:
            grid = grid.T  # a row for each measure, as with several kinds
        labels = {}
        for pool in pools:
            axes = grid[measures.index(pool.of), kinds.index(pool.kind)]
            labels[axes] = _small_multiple(analysis, pool, axes, rows, marks)
        for of, in_row in zip(measures, grid, strict=True):
            drawn = [axes for axes in in_row if axes in labels]
            drawn[0].set_ylabel(f"gain of sharing, {MEASURES[of][1]}")
        for axes in grid.flat:
            if axes not in labels:
                axes.remove()
        for axes, ends in labels.items():  # after all have drawn: they share the scale
            label_ends(figure, axes, ends)
            zero_line(axes, labels=False)
    metrics = "; ".join(
        f"{task} by {written(analysis.headline[task])}"
        for pool in pools
        if pool.of == "headline"
        for task in pool.tasks
    )
    seen = "; ".join(f"for {pool.kind} tasks' {MEASURES[pool.of][0]} {captions.of_pool(pool)}" for pool in pools)
    caption = f"gain of sharing against model size: {seen} ({metrics or 'losses'}; black: mean with its 95 % band)"
    described = "; ".join(f"{pool.kind}, {pool.of}: {_in_words(pool)}" for pool in pools)
    return finish(figure, "claim", "headline", caption, described, rows, marks=marks)


def _small_multiple(
    analysis: Analysis, pool: Pool, axes: Axes, rows: list[Row], marks: list[Mark]
) -> list[tuple[float, float, str, str]]:
    """Draws one kind; returns the labels of its series. A single task has its own intervals, as there is no mean."""
    axes.set_title(f"{pool.kind} tasks, {MEASURES[pool.of][0]}", loc="left", fontsize=10, fontweight="bold")
    axes.grid(axis="y", color=LIGHT["muted"], alpha=0.18, linewidth=0.6)
    keys = [(task, LOSS if pool.of == "loss" else analysis.headline[task]) for task in pool.tasks]
    ends = [draw_task(analysis, key, axes, rows, marks) for key in keys]
    mean, label, colour = [(float(size), gain) for size, gain in pool.gains.items()], f"{pool.kind} mean", LIGHT["ink"]
    if len(keys) > 1:
        points(axes, mean, colour, "o", size=5.5)
        ends.append((mean[-1][0], mean[-1][1].value, "mean", colour))
        rows += point_rows(f"{label} {pool.of}", mean)
        marks += marks_of(axes, f"{pool.kind} tasks, mean gain", mean)
    else:
        points(axes, mean, *task_style(keys[0][0], analysis.results.tasks))
    if pool.means is not None and (line := pool.means.line()) is not None:
        rows += draw_line(axes, f"{label} {pool.of}", line, colour)
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
