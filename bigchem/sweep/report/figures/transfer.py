"""Heat maps of transfer: what adding each task does to each other one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bigchem.evaluate.protocol.names import with_unit, written
from bigchem.sweep.analysis import captions
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.analysis.transfer import Effect
from bigchem.sweep.report.figures.drawing import STYLE, Panel, finish
from bigchem.sweep.report.figures.hover import Mark
from bigchem.sweep.report.tables import TABLES, estimate_text, transfer_rows
from bigchem.sweep.scores.aggregate import size_name
from bigchem.sweep.scores.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "PuOr"
"""From orange to purple, told apart with every common colour blindness."""
UNDECIDED = "#e7e9ee"
DARK_TEXT, LIGHT_TEXT = "#000000", "#ffffff"
"""On cells, whose colours are the same in light and dark mode."""
TITLES = {
    "pair": "task alone, plus another",
    "leave-one-out": "all tasks, against all but one",
    "leave-group-out": "all tasks, against all but several",
}


def transfer_figures(analysis: Analysis) -> list[Panel]:
    """One for each design, size, and headline metrics or losses."""
    matrices = dict.fromkeys(effect.matrix for effect in analysis.transfer)
    return [_heat_map([e for e in analysis.transfer if e.matrix == matrix]) for matrix in matrices]


def _heat_map(effects: Sequence[Effect]) -> Panel:
    """effects: of one matrix."""
    design, of, parameters = effects[0].matrix
    rows = list(dict.fromkeys(e.gain.task for e in effects))
    order = [*rows, *(e.added for e in effects)]
    columns = sorted({e.added for e in effects}, key=order.index)
    size = size_name(parameters)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 1.15 * len(columns), 1.2 + 0.55 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(f"{TITLES[design]} · {of} · {size}", loc="left", fontsize=10, fontweight="bold")
        reach = _reach(effects)
        for effect in effects:
            _cell(axes, effect, columns.index(effect.added), rows.index(effect.gain.task), reach[effect.gain.task])
        metrics = {e.gain.task: with_unit(e.gain.metric) for e in effects}
        labels = rows if of == "loss" else [f"{task}\n{metrics[task]}" for task in rows]
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), columns, rotation=20 if len(columns) > 3 else 0)
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(length=0)
        axes.set_xlabel("tasks added" if design == "leave-group-out" else "task added")
        axes.set_ylabel("effect on")
        for spine in axes.spines.values():
            spine.set_visible(False)
    what = "a group of tasks" if design == "leave-group-out" else "a task"
    caption = f"effect of adding {what} (columns) to the {_mixture(design)} on another (rows) at {size}, in "
    caption += "loss (nats per token)" if of == "loss" else "headline metrics"
    caption += f": {captions.of_transfer(effects)} (with 95 % intervals; positive, purple: it helps; orange: it hurts; "
    caption += f"grey: undecided after Holm's correction over {len(effects)} cells)"
    described = "; ".join(f"{e.added} on {e.gain.task} {e.gain.estimate.value:+.3g}" for e in effects)
    name = f"transfer-{design}-{of}-{parameters}"
    marks = [_mark(axes, e, columns.index(e.added), rows.index(e.gain.task)) for e in effects]
    return finish(figure, name, of, caption, described, transfer_rows(effects), TABLES["transfer"], marks)


def _mark(axes: Axes, effect: Effect, column: int, row: int) -> Mark:
    gain, p = effect.gain, "unknown: one seed" if effect.corrected is None else f"{effect.corrected:.2g}"
    first = f"{effect.added} added, {gain.task} {written(gain.metric)}"
    last = f"p (Holm) {p}; {len(gain.points)} seeds" if gain.seeds else f"p (Holm) {p}"
    return Mark(axes, column, row, (first, estimate_text(gain.estimate, signed=True), last))


def _mixture(design: str) -> str:
    return "task alone" if design == "pair" else "mixture of all the others"


def _reach(effects: Sequence[Effect]) -> dict[str, float]:
    """The effect that has the full colour, by row: metrics without bounds have a scale of their own."""

    def largest(found: Sequence[Effect]) -> float:
        return max((abs(e.gain.estimate.value) for e in found), default=0.0) or 1.0

    common = largest([e for e in effects if e.of == "loss" or e.gain.scale.bounded])
    tasks = dict.fromkeys(e.gain.task for e in effects)
    own = {task: [e for e in effects if e.gain.task == task] for task in tasks}
    is_common = {task: found[0].of == "loss" or found[0].gain.scale.bounded for task, found in own.items()}
    return {task: common if is_common[task] else largest(found) for task, found in own.items()}


def _cell(axes: Axes, effect: Effect, column: int, row: int, reach: float) -> None:
    value = effect.gain.estimate.value
    red, green, blue, _ = mpl.colormaps[COLOURS](TwoSlopeNorm(0.0, -1.25 * reach, 1.25 * reach)(value))
    face = (red, green, blue) if effect.sign else UNDECIDED
    is_dark = effect.sign != 0 and 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    axes.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=face, linewidth=0))
    colour = LIGHT_TEXT if is_dark else DARK_TEXT
    axes.text(column, row - 0.14, _signed(value), ha="center", va="center", fontsize=9, color=colour)
    if interval := _interval(effect.gain.estimate):
        axes.text(column, row + 0.22, interval, ha="center", va="center", fontsize=6.5, color=colour)


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{_signed(estimate.low)}, {_signed(estimate.high)}]"


def _signed(value: float) -> str:
    """+0.012, with a true minus sign."""
    return f"{value:+z.3f}".replace("-", "−")
