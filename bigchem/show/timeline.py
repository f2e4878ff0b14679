"""The timeline of a run's attempts: when each ran, where, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import matplotlib as mpl
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from bigchem.base.printable import number_of, printable
from bigchem.base.progress import duration
from bigchem.launch.runs.history import Attempt
from bigchem.run.lifecycle import ENDS, End
from bigchem.show.curves import Drawing
from bigchem.sweep.report.figures.drawing import LIGHT, MORE_LIGHT, STYLE, inline_svg
from bigchem.sweep.report.figures.hover import Mark

SHOWN = 30
"""Attempts in the figure: the last ones."""
RUNNING = LIGHT["blue"]
GOOD, AGAIN, BAD = LIGHT["green"], LIGHT["olive"], MORE_LIGHT["red"]
WIDTH, LINE = 9.0, 0.26
LEAST = 0.004
"""Share of the width that a bar has at least."""


def colour_of(attempt: Attempt) -> str:
    """Green: its work was done; olive: it was stopped with a checkpoint; red: it failed; blue: it has not ended."""
    if not attempt.end:
        return RUNNING
    end = End(attempt.end)
    if end in (End.FINISHED, End.TRAINED):
        return GOOD
    return AGAIN if end in (End.STOPPED, End.PREEMPTED, End.TIME_LIMIT) or ENDS[end].state is None else BAD


def timeline(attempts: Sequence[Attempt]) -> Drawing | None:
    """A bar for each attempt against local time; None without attempts."""
    if not attempts:
        return None
    shown = attempts[-SHOWN:]
    first, last = shown[0].time, max(one.time + one.seconds for one in shown)
    span = max(last - first, 1.0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.65 + LINE * len(shown)), layout="constrained")
        axes = figure.subplots()
        marks = []
        for row, one in enumerate(shown):
            begun = date2num(datetime.fromtimestamp(one.time))
            width = max(one.seconds, LEAST * span) / 86400
            axes.barh(row, width, left=begun, height=0.6, color=colour_of(one))
            text = f"{one.end or 'not ended'}, {number_of('rank', one.ranks)} on {printable(one.nodes, limit=30)}"
            late = one.time - first > span / 2
            place = (begun, -6, "right") if late else (begun + width, 6, "left")
            axes.annotate(
                text, (place[0], row), (place[1], 0), textcoords="offset points", ha=place[2], va="center", fontsize=8
            )
            steps = f"steps {one.from_step:,} to {one.to_step:,}"
            marks.append(Mark(axes, begun + width / 2, row, (f"attempt {one.attempt}: {duration(one.seconds)}", steps)))
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_yticks(range(len(shown)), [str(one.attempt) for one in shown])
        axes.set_ylabel("attempt")
        axes.set_xlim(
            date2num(datetime.fromtimestamp(first - 0.02 * span)), date2num(datetime.fromtimestamp(last + 0.02 * span))
        )
        locator = AutoDateLocator(maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=LIGHT["muted"], alpha=0.18, linewidth=0.6)
        axes.set_axisbelow(True)
    left_out = f"; the last {SHOWN} of {len(attempts)}" if len(attempts) > SHOWN else ""
    caption = f"Attempts by local time{left_out}: green did its work, olive was stopped, red failed, blue has not ended"
    described = "; ".join(f"attempt {one.attempt}: {one.end or 'not ended'}" for one in shown)
    return Drawing(caption, inline_svg(figure, "timeline", caption, described, marks))
