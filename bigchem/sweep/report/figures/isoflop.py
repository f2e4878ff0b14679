"""Metrics against model size at equal training FLOPs, with parabolas and the best sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bigchem.evaluate.protocol.names import with_unit, written
from bigchem.sweep.analysis import captions
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.analysis.isoflop import IsoFlop, Profile
from bigchem.sweep.report.figures.by_size import REGIME_STYLE, file_name
from bigchem.sweep.report.figures.drawing import (
    COLOURS,
    LIGHT,
    STYLE,
    Panel,
    alt_text,
    finish,
    label_ends,
    points,
    sizes_axis,
)
from bigchem.sweep.report.figures.hover import Mark, marks_of_cells
from bigchem.sweep.report.tables import Row, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("series", "what", "flops", "parameters", "value", "low", "high")
"""Of a figure's CSV. what: point, curve or best."""
ROOM = 0.3
"""Share of the width kept free for the labels."""


def isoflop_figures(analysis: Analysis) -> Iterator[Panel]:
    """One for each drawn metric that has three sizes at equal FLOPs."""
    for key in analysis.shown:
        if found := [one for one in analysis.isoflops if one.key == key]:
            yield _panel(found)


def _panel(found: Sequence[IsoFlop]) -> Panel:
    """The regimes of a metric side by side, on one scale."""
    task, metric = found[0].key
    rows: list[Row] = []
    marks: list[Mark] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.9 * len(found), 3.2), layout="constrained")
        all_axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        ends = [_regime(axes, one, rows, marks) for axes, one in zip(all_axes, found, strict=True)]
        all_axes[0].set_ylabel(with_unit(metric))
        for axes, labels in zip(all_axes, ends, strict=True):  # after all have drawn: they share the scale
            label_ends(figure, axes, labels)
    described = "; ".join(
        f"{one.regime} at {captions.flops_name(profile.flops)} FLOPs: {alt_text(_points(profile))}"
        for one in found
        for profile in one.profiles
    )
    caption, name = captions.of_isoflops(found), f"isoflop-{file_name((task, metric))}"
    return finish(figure, name, metric, caption, described, rows, COLUMNS, marks)


def _regime(axes: Axes, found: IsoFlop, rows: list[Row], marks: list[Mark]) -> list[tuple[float, float, str, str]]:
    """Draws one regime, a colour for each number of FLOPs; returns the labels of its series."""
    axes.set_title(f"{found.task} · {written(found.metric)} · {found.regime}", loc="left", fontsize=9.5, weight="bold")
    axes.grid(axis="y", color=LIGHT["muted"], alpha=0.18, linewidth=0.6)
    ends = []
    for place, profile in enumerate(found.profiles):
        colour, flops = COLOURS[place % len(COLOURS)], captions.flops_name(profile.flops)
        series: Row = {"series": found.regime, "flops": profile.flops}
        drawn, name = _points(profile), f"{found.task} {written(found.metric)}, {found.regime}, {flops} FLOPs"
        points(axes, drawn, colour, REGIME_STYLE[found.regime][1], size=4)
        rows += [{**series, "what": "point", "parameters": int(x), **numbers(e)} for x, e in drawn]
        marks += marks_of_cells(axes, name, profile.cells)
        if profile.fit is None:
            axes.plot([x for x, _ in drawn], [e.value for _, e in drawn], color=colour, linestyle=(0, (1, 1.6)))
        else:
            x = np.geomspace(*profile.fit.ends, 61)
            y = profile.fit(x)
            axes.plot(x, y, color=colour, linewidth=1.3)
            curve = zip(x.tolist(), y.tolist(), strict=True)
            rows += [{**series, "what": "curve", "parameters": at, "value": height} for at, height in curve]
        if (best := _best(axes, profile, colour, name)) is not None:
            marks.append(best)
            rows.append({**series, "what": "best", "parameters": best.x, "value": best.y})
        ends.append((drawn[-1][0], drawn[-1][1].value, f"{flops} FLOPs", colour))
    sizes_axis(axes, sorted({float(cell.parameters) for one in found.profiles for cell in one.cells}), ROOM)
    return ends


def _best(axes: Axes, profile: Profile, colour: str, name: str) -> Mark | None:
    """A star at the best size, with its interval; None where it is not determined."""
    fit = profile.fit
    if fit is None or fit.size is None or fit.value is None:
        return None
    style: dict[str, Any] = {"color": colour, "markeredgecolor": LIGHT["ink"], "markeredgewidth": 0.6, "zorder": 5}
    axes.plot([fit.size.value], [fit.value], "*", markersize=10, **style)
    if fit.size.low is not None and fit.size.high is not None:
        axes.plot([fit.size.low, fit.size.high], [fit.value] * 2, color=colour, linewidth=3, alpha=0.35)
    return Mark(axes, fit.size.value, fit.value, (name, captions.best_size(fit)))


def _points(profile: Profile) -> list[tuple[float, Any]]:
    return [(float(cell.parameters), cell.estimate) for cell in profile.cells]
