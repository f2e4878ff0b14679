"""Learning curves as figures of a page: losses by task, learning rate, gradient norm, speed, memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from bigchem.show.record import RunRecord
from bigchem.sweep.report.figures.drawing import LIGHT, MORE_LIGHT, STYLE, inline_svg, label_ends
from bigchem.sweep.report.figures.hover import Mark

COLOURS = [LIGHT[name] for name in ("blue", "orange", "green", "violet", "olive")] + [*MORE_LIGHT.values()]
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
MOST = len(COLOURS) * len(DASHES)
"""Series that a figure can tell apart."""
POINTS, MARKS = 400, 12
"""Points of a drawn series: with more rows each is a mean of neighbours. Those of them that show their values."""
LOG_FROM = 20.0
"""Ratio of the largest to the smallest value from which the scale is logarithmic."""
GIB = 2.0**30


@dataclass(frozen=True)
class Drawing:
    """A drawn figure: caption, and SVG for the page."""

    caption: str
    inline: str


@dataclass(frozen=True)
class Series:
    """A curve: its name, its points (x, y; y may be NaN) and the index of its colour and dash; None: black."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int | None = None

    @property
    def colour(self) -> str:
        return LIGHT["ink"] if self.style is None else COLOURS[self.style % len(COLOURS)]

    @property
    def dash(self) -> Any:
        return "-" if self.style is None else DASHES[self.style // len(COLOURS) % len(DASHES)]


@dataclass(frozen=True)
class Plot:
    """What to draw. unit: of y. boundaries: steps at which attempts began. marked: every point is a marker."""

    name: str
    title: str
    unit: str
    series: Sequence[Series]
    x: str = "step"
    boundaries: Sequence[float] = ()
    marked: bool = False
    log: bool = False


def run_figures(record: RunRecord) -> Iterator[Drawing]:
    """One run's curves; those without a value are left out."""
    starts = [one.from_step for one in record.attempts[1:]]
    styles = {task: index for index, task in enumerate(record.tasks)}

    def by_task(prefix: str, all_: str) -> list[Series]:
        tasks = [Series(task, record.series(f"{prefix}/{task}"), styles[task]) for task in record.tasks[:MOST]]
        return [*tasks, Series("all", record.series(all_))] if len(record.tasks) != 1 else tasks

    def alone(field: str, scale: float = 1.0) -> list[Series]:
        return [Series("", [(x, y * scale) for x, y in record.series(field)], 0)]

    nats = "nats per target token"
    plots = [
        Plot("loss", "Training loss", nats, by_task("loss", "loss")),
        Plot("valid", "Validation loss", nats, by_task("valid_loss", "valid_loss"), marked=True),
        Plot("lr", "Learning rate", "", alone("lr")),
        Plot("grad", "Gradient norm before clipping", "", alone("grad_norm"), log=True),
        Plot("speed", "Speed", "tokens/s, all ranks", alone("tokens_per_s")),
        Plot("memory", "Peak memory of rank 0", "GiB", alone("memory", 1 / GIB)),
    ]
    for plot in plots:
        if any(math.isfinite(y) for one in plot.series for _, y in one.points):
            yield draw(plot, starts)


def compared_figures(records: Sequence[RunRecord], labels: Sequence[str]) -> Iterator[Drawing]:
    """Several runs' curves over each other: against tokens if their batches differ, else against steps."""
    batches = {None if record.config is None else record.config.data.global_tokens for record in records}
    x = "tokens" if len(batches) > 1 else "step"

    def of(field: str, scale: float = 1.0) -> list[Series]:
        return [
            Series(label, [(row[x], row[field] * scale) for row in record.rows if field in row and x in row], index)
            for index, (record, label) in enumerate(zip(records, labels, strict=True))
        ]

    nats, tasks = "nats per target token", list(dict.fromkeys(task for record in records for task in record.tasks))
    plots = [
        Plot("loss", "Training loss", nats, of("loss"), x),
        Plot("valid", "Validation loss", nats, of("valid_loss"), x, marked=True),
        *(
            Plot(f"valid-{number}", f"Validation loss: {task}", nats, of(f"valid_loss/{task}"), x, marked=True)
            for number, task in enumerate(tasks)
        ),
        Plot("lr", "Learning rate", "", of("lr"), x),
        Plot("grad", "Gradient norm before clipping", "", of("grad_norm"), x, log=True),
        Plot("speed", "Speed", "tokens/s, all ranks", of("tokens_per_s"), x),
        Plot("memory", "Peak memory of rank 0", "GiB", of("memory", 1 / GIB), x),
    ]
    for plot in plots:
        if any(math.isfinite(y) for one in plot.series for _, y in one.points):
            yield draw(plot, ())


def draw(plot: Plot, boundaries: Sequence[float]) -> Drawing:
    """Draws a plot. boundaries: dotted lines."""
    drawn = [one for one in plot.series if any(math.isfinite(y) for _, y in one.points)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.set_title(plot.title, loc="left", fontsize=10, fontweight="bold", pad=18)
        style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 8.5}
        axes.annotate(plot.unit, (0, 1), (0, 5), color=LIGHT["muted"], **style)
        for boundary in boundaries:
            axes.axvline(boundary, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (1, 2)))
        marks: list[Mark] = []
        ends: list[tuple[float, float, str, str]] = []
        mean_of = 1
        for one in drawn:
            points, size = thinned(one.points)
            mean_of = max(mean_of, size)
            marker = "o" if plot.marked or len(points) == 1 else "None"
            width = 1.8 if one.style is None else 1.3
            look = {"marker": marker, "markersize": 3.5, "linestyle": one.dash, "linewidth": width}
            axes.plot(*zip(*points, strict=True), color=one.colour, **look)
            finite = [point for point in points if math.isfinite(point[1])]
            ends.append((*finite[-1], one.name, one.colour))
            for x, y in _spread(finite):
                name = (one.name,) if one.name else ()
                marks.append(Mark(axes, x, y, (*name, f"{plot.x} {x:,.0f}: {_short(y)}")))
        values = [y for one in drawn for _, y in one.points if math.isfinite(y) and y > 0]
        if plot.log and values and max(values) / min(values) > LOG_FROM:
            axes.set_yscale("log")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
            if max(values, default=0.0) >= 1e4:
                axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.grid(axis="y", color=LIGHT["muted"], alpha=0.18, linewidth=0.6)
        axes.margins(x=0.02, y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if max((x for one in drawn for x, _ in one.points), default=0.0) >= 1e4:
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_xlabel(plot.x)
        named = any(one.name for one in drawn)
        if named and axes.get_yscale() == "log":  # label_ends spaces its labels along a linear axis
            axes.legend([*axes.lines[len(boundaries) :]], [one.name for one in drawn], fontsize=8, frameon=False)
        elif named:
            right = max(end[0] for end in ends)
            label_ends(figure, axes, [(right, y, name, colour) for _, y, name, colour in ends])
    described = "; ".join(
        f"{one.name or plot.title}: {_short(end[1])} at the end" for one, end in zip(drawn, ends, strict=True)
    )
    caption = f"{plot.title} by {plot.x}" + (f"; each point is the mean of {mean_of} rows" if mean_of > 1 else "")
    if boundaries:
        caption += "; dotted: another attempt begins"
    return Drawing(caption, inline_svg(figure, plot.name, caption, described, marks))


def thinned(points: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], int]:
    """At most POINTS points, each the mean of the finite values of so many neighbours, at the last one's place."""
    size = math.ceil(len(points) / POINTS)
    if size <= 1:
        return [*points], 1
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    means = []
    for block in blocks:
        finite = [y for _, y in block if math.isfinite(y)]
        means.append((block[-1][0], float(np.mean(finite)) if finite else math.nan))
    return means, size


def _spread(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """MARKS of the points, with the first and the last."""
    if len(points) <= MARKS:
        return [*points]
    return [points[round(index * (len(points) - 1) / (MARKS - 1))] for index in range(MARKS)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
