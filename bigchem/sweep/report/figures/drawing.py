"""What all figures share: colours, axes, and export to PNG and to SVG that follows the page's colours."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from bigchem.base.printable import csv_text
from bigchem.sweep.report.figures.hover import Mark, overlay
from bigchem.sweep.report.tables import Row
from bigchem.sweep.scores.aggregate import size_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bigchem.sweep.scores.estimate import Estimate

# After Okabe and Ito, darkened until text has a contrast of 4.5:1 on white. Distinguishable with every common colour
# blindness; markers and dashes differ as well.
LIGHT = {
    "ink": "#1f2430",
    "muted": "#667085",
    "blue": "#0072b2",
    "orange": "#c14a00",
    "green": "#00805c",
    "violet": "#9c3d80",
    "olive": "#6f6a00",
}
DARK = {
    "ink": "#e6e8ee",
    "muted": "#99a2b3",
    "blue": "#56b4e9",
    "orange": "#f0954a",
    "green": "#35c79b",
    "violet": "#e08fc4",
    "olive": "#cfc84a",
}
# Of the tasks after the first five; a page names only those that it uses.
MORE_LIGHT = {"red": "#b3123f", "purple": "#5b45c9", "brown": "#7a4b23", "teal": "#00727d"}
MORE_DARK = {"red": "#ff7d96", "purple": "#a99bff", "brown": "#d3a274", "teal": "#5fc9d4"}
COLOURS = [LIGHT[name] for name in ("blue", "orange", "green", "violet", "olive")] + list(MORE_LIGHT.values())
"""Of series, in order."""
STYLE = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "bigchem",
    "pdf.fonttype": 42,  # as text that editors can select, which some journals ask for
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.linewidth": 0.8,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
}
HEIGHT, LINE = 3.0, 0.255
"""Of a panel, and of a label with its space, in inches."""
LONGEST = 20
"""Characters of a label."""
POINT_COLUMNS = ("series", "what", "parameters", "value", "low", "high")
"""Columns of a figure's CSV. what: point, seed or curve."""


@dataclass(frozen=True)
class Panel:
    """A drawn figure: caption, SVG, PNG, PDF, and its numbers as CSV. inline: the SVG for embedding (no XML head, no
    URLs, unique ids), with the values of its points, see hover.py. of: the metric, or the kind of task."""

    name: str
    of: str
    caption: str
    svg: str
    inline: str
    png: bytes
    pdf: bytes
    csv: str

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self.svg


def axes_of(title: str, subtitle: str, labels: int = 0) -> tuple[Figure, Axes]:
    """An empty panel of the common size, higher if so many labels of series need it."""
    figure = Figure(figsize=(4.2, max(HEIGHT, 0.6 + LINE * labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=min(10.0, 400 / len(title)), fontweight="bold", pad=18)
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 8.5}
    axes.annotate(subtitle, (0, 1), (0, 5), color=LIGHT["muted"], **style)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", color=LIGHT["muted"], alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(y=0.16)
    return figure, axes


def points(axes: Axes, found: Sequence[tuple[float, Estimate]], colour: str, marker: str, size: float = 5) -> None:
    """Draws values with their error bars."""
    axes.plot([x for x, _ in found], [e.value for _, e in found], marker, color=colour, markersize=size)
    barred = [(x, e.value, e.margins) for x, e in found if e.margins is not None]
    if barred:
        axes.errorbar(
            [x for x, _, _ in barred],
            [y for _, y, _ in barred],
            yerr=np.array([m for _, _, m in barred]).T,
            fmt="none",
            color=colour,
            elinewidth=1.2,
            capsize=2.5,
        )


def sizes_axis(axes: Axes, sizes: Sequence[float], room: float) -> None:
    """Puts ticks at the measured sizes, thinned where labels would touch. room: share of width kept free at right."""
    low, high = min(sizes) / 1.25, max(sizes) * 1.25
    high *= (high / low) ** (room / (1 - room))
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks: list[float] = []
    for size in sorted(set(sizes)):
        if not ticks or np.log(size / ticks[-1]) > 0.13 * np.log(high / low):
            ticks.append(size)
    axes.set_xticks(ticks, [size_name(size) for size in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("parameters (log scale)")


def label_ends(figure: Figure, axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Labels series at their last points (x, y, name, colour), pushed apart where labels would touch. Long names are
    cut."""
    low, high = axes.get_ylim()
    spacing = LINE / figure.get_figheight() * (high - low)
    placed = sorted(ends, key=lambda end: end[1])
    heights = [end[1] for end in placed]
    for _ in range(50):
        for i in range(1, len(heights)):
            lack = spacing - (heights[i] - heights[i - 1])
            if lack > 1e-9:
                heights[i - 1], heights[i] = heights[i - 1] - lack / 2, heights[i] + lack / 2
    right = max((end[0] for end in ends), default=1.0)
    for (_, _, name, colour), height in zip(placed, heights, strict=True):
        style: dict[str, Any] = {"color": colour, "fontweight": "bold", "fontsize": 8.5, "va": "center"}
        text = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        axes.annotate(text, (right, height), (9, 0), textcoords="offset points", annotation_clip=False, **style)


def alt_text(found: Sequence[tuple[float, Estimate]]) -> str:
    """The values as text, for screen readers."""
    return ", ".join(f"{estimate.value:.4g} at {size_name(size)}" for size, estimate in found)


def finish(
    figure: Figure,
    name: str,
    of: str,
    caption: str,
    description: str,
    rows: Sequence[Row],
    columns: Sequence[str] = POINT_COLUMNS,
    marks: Sequence[Mark] = (),
) -> Panel:
    """The drawing as files and for the page. description: for screen readers. rows, columns: of its CSV. marks: points
    that show their values."""
    png, pdf = io.BytesIO(), io.BytesIO()
    body = _svg(figure, name)
    figure.set_layout_engine("none")  # the layout is already computed; computing it again would take half the time
    figure.savefig(png, format="png", dpi=200, facecolor="white")
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    title, spoken = _spoken(name, caption, description)
    standalone = body.replace("<svg ", f"<svg {spoken} ", 1)
    standalone = re.sub(
        r"(<svg [^>]*>)", rf"\g<1>{title}<style>{palette_css('svg', body)}</style>", standalone, count=1
    )
    inline = _inline(body, name, caption, description) + overlay(figure, marks) + "</svg>\n"
    return Panel(name, of, caption, standalone, inline, png.getvalue(), pdf.getvalue(), csv_text(columns, rows))


def inline_svg(figure: Figure, name: str, caption: str, description: str, marks: Sequence[Mark] = ()) -> str:
    """The drawing for a page alone, as Panel.inline."""
    return _inline(_svg(figure, name), name, caption, description) + overlay(figure, marks) + "</svg>\n"


def _svg(figure: Figure, name: str) -> str:
    """The drawing as SVG that follows the page's colours and whose ids begin with its name."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    body = re.sub(r"<metadata>.*?</metadata>", "", drawn.getvalue(), flags=re.DOTALL)
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, 'DejaVu Sans', sans-serif", body)
    for colour, value in (LIGHT | MORE_LIGHT).items():
        body = body.replace(value, "currentColor" if colour == "ink" else f"var(--{colour})")
    return body


def _spoken(name: str, caption: str, description: str) -> tuple[str, str]:
    """A figure's title and description for screen readers, and the attributes that refer to them."""
    title = f'<title id="{name}-t">{html.escape(caption)}</title><desc id="{name}-d">{html.escape(description)}</desc>'
    return title, f'role="img" aria-labelledby="{name}-t {name}-d"'


def _inline(body: str, name: str, caption: str, description: str) -> str:
    """A drawing without its end tag, for a page."""
    title, spoken = _spoken(name, caption, description)
    # An image has no parts for screen readers: on the page it is a group of the image and its points.
    inline = body[body.index("<svg ") :].replace("<svg ", f'<svg role="group" aria-labelledby="{name}-t" ', 1)
    inline = inline.replace(f'<g id="{name}-figure_1">', f'<g id="{name}-figure_1" {spoken}>{title}', 1)
    inline = re.sub(r' xmlns(:xlink)?="[^"]*"', "", inline).replace("xlink:href", "href")
    inline = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\g<1>", inline, count=1)
    inline = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\g<1>", inline, count=1)
    return inline.rstrip().removesuffix("</svg>")


def palette_css(selector: str, drawn: str) -> str:
    """The figures' colours as CSS variables, for light and dark mode. drawn: what uses them."""

    def rule(palette: dict[str, str], more: dict[str, str]) -> str:
        used = palette | {name: value for name, value in more.items() if f"var(--{name})" in drawn}
        variables = "".join(f"--{name}:{value};" for name, value in used.items())
        return f"{selector}{{{variables}color:var(--ink)}}"

    return f"{rule(LIGHT, MORE_LIGHT)}@media (prefers-color-scheme:dark){{{rule(DARK, MORE_DARK)}}}"
