"""The report's figures: one small panel each, as PNG and as SVG that follows the page's light or dark colours."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from bigchem.sweep.analysis import Analysis, Key, signed, size_name
from bigchem.sweep.results import REGIMES, higher_is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bigchem.sweep.fit import Estimate

# Okabe-Ito: told apart with every common colour blindness; markers and dashes differ as well.
LIGHT = {"ink": "#1f2430", "muted": "#707887", "together": "#0072b2", "alone": "#c14a00", "gain": "#00805c"}
DARK = {"ink": "#e6e8ee", "muted": "#969eae", "together": "#56b4e9", "alone": "#f0954a", "gain": "#35c79b"}
_LOOK = {"together": ("o", "-"), "alone": ("s", (0, (4, 2)))}
_STYLE = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "bigchem",
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Panel:
    """A drawn figure. svg stands alone; inline is the same for embedding (no XML head, no URLs, ids of its own)."""

    name: str
    metric: str
    svg: str
    inline: str
    png: bytes


def metric_panel(analysis: Analysis, key: Key) -> Panel:
    """A metric against size, one series per regime, with the fitted curve where there is one."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panel(
            f"{key[0]} · {key[1]}", "higher is better" if higher_is_better(key[1]) else "lower is better"
        )
        told, ends = [], []
        for shift, regime in zip((0.985, 1.015), REGIMES, strict=True):
            cells = analysis.cells_of(key, regime)
            if not cells:
                continue
            points = [(c.parameters, c.estimate) for c in cells if c.estimate is not None]
            marker, dash = _LOOK[regime]
            _points(axes, [(size * shift, estimate) for size, estimate in points], LIGHT[regime], marker)
            if fitted := analysis.curves.get((*key, regime)):
                x = np.geomspace(points[0][0], points[-1][0], 60)
                axes.plot(x, fitted(x), color=LIGHT[regime], linestyle=dash, linewidth=1.4)
            ends.append((points[-1][0], points[-1][1].value, regime))
            told.append(f"{regime}: " + _spoken(points))
        _sizes_axis(axes, [c.parameters for r in REGIMES for c in analysis.cells_of(key, r)], room=1.9)
        _label_ends(axes, ends)
        return _finish(figure, key, "", f"{key[0]} {key[1]} against model size", "; ".join(told))


def gain_panel(analysis: Analysis, key: Key) -> Panel | None:
    """The gain of sharing against size with its line; None where no size was trained both ways."""
    gains = analysis.gains_of(key)
    if not gains:
        return None
    trend = analysis.trends.get(key)
    subtitle = "too few sizes for a slope" if trend is None else f"{signed(trend.slope)} per decade"
    with mpl.rc_context(_STYLE):
        figure, axes = _panel(f"{key[0]} · gain in {key[1]}", subtitle)
        points = [(gain.parameters, gain.estimate) for gain in gains]
        _points(axes, points, LIGHT["gain"], "D")
        if trend is not None:
            x = np.geomspace(points[0][0], points[-1][0], 60)
            axes.plot(x, trend(x), color=LIGHT["gain"], linewidth=1.4)
        axes.axhline(0.0, color=LIGHT["muted"], linewidth=1.0, linestyle=(0, (2, 2)))
        _sizes_axis(axes, [size for size, _ in points], room=1.9)
        for text, align in (("helps ↑", "bottom"), ("hurts ↓", "top")):
            axes.annotate(
                text,
                (0.99, 0.0),
                (0, 2 if align == "bottom" else -2),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va=align,
                fontsize=8,
                color=LIGHT["muted"],
            )
        title = f"{key[0]}: gain of sharing in {key[1]} against model size"
        return _finish(figure, key, "-gain", title, f"{_spoken(points)}; slope: {subtitle}")


def _panel(title: str, subtitle: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", pad=18)
    axes.annotate(
        subtitle,
        (0, 1),
        (0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        color=LIGHT["muted"],
    )
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(y=0.16)
    return figure, axes


def _points(axes: Axes, points: Sequence[tuple[float, Estimate]], colour: str, marker: str) -> None:
    axes.plot([x for x, _ in points], [e.value for _, e in points], marker, color=colour, markersize=5)
    barred = [(x, e.value, e.margins) for x, e in points if e.margins is not None]
    if barred:
        margins = np.array([m for _, _, m in barred]).T
        axes.errorbar(
            [x for x, _, _ in barred],
            [y for _, y, _ in barred],
            yerr=margins,
            fmt="none",
            color=colour,
            elinewidth=1.2,
            capsize=2.5,
        )


def _sizes_axis(axes: Axes, sizes: Sequence[int], room: float) -> None:
    """Ticks at the measured sizes, thinned where their names would touch; room for labels at the right."""
    low, high = min(sizes) / 1.25, max(sizes) * 1.25
    high *= (high / low) ** (0.18 * (room - 1))
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks: list[int] = []
    for size in sorted(set(sizes)):
        if not ticks or np.log(size / ticks[-1]) > 0.13 * np.log(high / low):
            ticks.append(size)
    axes.set_xticks(ticks, [size_name(size) for size in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("parameters (log scale)")


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str]]) -> None:
    """The series' names beside their last points, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    close = len(ends) == 2 and abs(ends[0][1] - ends[1][1]) < 0.09 * (high - low)
    top = max(ends, key=lambda end: end[1])
    for x, y, regime in ends:
        align = "center" if not close else "bottom" if (x, y, regime) == top else "top"
        style: dict[str, Any] = {"color": LIGHT[regime], "fontweight": "bold", "fontsize": 8.5}
        axes.annotate(regime, (x, y), (8, 0), textcoords="offset points", va=align, **style)


def _spoken(points: Sequence[tuple[int, Estimate]]) -> str:
    return ", ".join(f"{estimate.value:.4g} at {size_name(size)}" for size, estimate in points)


def _finish(figure: Figure, key: Key, suffix: str, title: str, description: str) -> Panel:
    name = f"{key[0]}-{key[1]}{suffix}"
    drawn, png = io.StringIO(), io.BytesIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    figure.set_layout_engine("none")  # the first drawing placed everything; placing it again takes half the time
    figure.savefig(png, format="png", dpi=200, facecolor="white")
    told = f'<title id="{name}-t">{html.escape(title)}</title><desc id="{name}-d">{html.escape(description)}</desc>'
    body = re.sub(r"<metadata>.*?</metadata>", "", drawn.getvalue(), flags=re.DOTALL)
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, 'DejaVu Sans', sans-serif", body)
    for colour, value in LIGHT.items():
        body = body.replace(value, "currentColor" if colour == "ink" else f"var(--{colour})")
    body = re.sub(r"<svg ", f'<svg role="img" aria-labelledby="{name}-t {name}-d" ', body, count=1)
    alone = re.sub(r"(<svg [^>]*>)", rf"\g<1>{told}<style>{palette_css('svg')}</style>", body, count=1)
    inline = re.sub(r"(<svg [^>]*>)", rf"\g<1>{told}", body[body.index("<svg ") :], count=1)
    inline = re.sub(r' xmlns(:xlink)?="[^"]*"', "", inline).replace("xlink:href", "href")
    inline = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\g<1>", inline, count=1)
    inline = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\g<1>", inline, count=1)
    return Panel(name, key[1], alone, inline, png.getvalue())


def palette_css(selector: str) -> str:
    """The figures' colours as CSS variables, for light and for dark."""

    def rule(palette: dict[str, str]) -> str:
        variables = "".join(f"--{name}:{value};" for name, value in palette.items())
        return f"{selector}{{{variables}color:var(--ink)}}"

    return f"{rule(LIGHT)}@media (prefers-color-scheme:dark){{{rule(DARK)}}}"
