"""The report's page: its sections, and its template's variables."""

from collections.abc import Iterator, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.analysis.captions import best_size, exponent
from bigchem.sweep.analysis.gains import contrast
from bigchem.sweep.analysis.isoflop import TOLERANCE
from bigchem.sweep.report.figures.axes import axis_figures
from bigchem.sweep.report.figures.by_size import gain_panel, metric_panel, pool_panel
from bigchem.sweep.report.figures.drawing import Panel, palette_css
from bigchem.sweep.report.figures.isoflop import isoflop_figures
from bigchem.sweep.report.figures.paper import claim_figure, forest_figure
from bigchem.sweep.report.figures.size_axes import size_axis_figures
from bigchem.sweep.report.figures.transfer import transfer_figures
from bigchem.sweep.report.tables import Row, beyond_rows, estimate_text, fit_rows, paired_rows, trend_rows
from bigchem.sweep.scores.aggregate import Key, size_name
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import LOSS, SIZE_AXES, Run

Section = tuple[str, str, list[Panel]]
"""Heading, explanation, figures."""

_POINTS = "Points are means over seeds, bars their 95 % intervals{seeds}; {fits}."
_GAIN = "Together minus alone, signed so that up is better; the line, if any, is by least squares, with its 95 % band."
_PAPER = "For a paper: the gain against size by kind of task, and every metric at the largest size."
_TRANSFER = (
    "A task's score with another one added to the mixture minus its score without. Grey cells are undecided. The added "
    "task takes its share of every step: transfer.csv has how many times as many examples of the task were left."
)
_AXIS = (
    "Means over seeds with 95 % intervals; solid: together, dashed: alone. All other figures are about one value of "
    "{axis}, which a note names. Runs that diverged are included here. Full precision: axes.csv."
)
_ISOFLOP = (
    f"Each colour is of runs with equal training FLOPs, within {TOLERANCE - 1:.0%}. Lines are parabolas in log N where "
    "three sizes have them, dotted otherwise; stars are best sizes, with their 95 % intervals. One at or beyond the "
    "edge of the sizes is not determined."
)
_OTHER_SIZE = (
    "The same means with their 95 % intervals, at the mean {name} of their runs. Slopes, fits and all other figures "
    "are against parameters."
)
_KINDS = (
    "Together minus alone, signed so that up is better, by task; and the mean over the kind's tasks with its 95 % "
    "interval, line and the line's band, at the sizes that all of them have."
)


def sections_of(analysis: Analysis) -> list[Section]:
    """All figures by section; sections without figures are omitted."""
    seeds = ", small points single seeds" if any(len(cell.seeds) > 1 for cell in analysis.cells) else ""
    fits = "lines are fits" if analysis.curves else "too few sizes for a fit"
    if any(curve.dof > 1 for curve in analysis.curves.values()):
        fits += " with their 95 % bands"
    if analysis.curves and analysis.beyond:
        fits += ", dotted and shaded where nothing was measured"
    points = _POINTS.format(seeds=seeds, fits=fits)
    metrics = [key for key in analysis.shown if key[1] != LOSS]
    losses = [key for key in analysis.shown if key[1] == LOSS]
    whole = [panel for panel in (claim_figure(analysis), forest_figure(analysis)) if panel is not None]
    sections = [
        ("The claim in two figures", _PAPER, whole),
        ("Gain of sharing by kind of task", _KINDS, list(_pools(analysis, "headline"))),
        ("Metrics against model size", points, [metric_panel(analysis, key) for key in metrics]),
        ("Gain of sharing against model size", _GAIN, list(_gains(analysis, metrics))),
        (
            "Loss against model size",
            f"Mean token cross-entropy on the split. {points}",
            [metric_panel(analysis, key) for key in losses],
        ),
        ("Gain of sharing in loss", _GAIN, [*_pools(analysis, "loss"), *_gains(analysis, losses)]),
        ("Transfer between tasks", _TRANSFER, transfer_figures(analysis)),
        *_axes(analysis),
        ("Metrics at equal training FLOPs (IsoFLOP)", _ISOFLOP, list(isoflop_figures(analysis))),
        *_other_sizes(analysis),
    ]
    return [section for section in sections if section[2]]


def _axes(analysis: Analysis) -> list[Section]:
    return [
        (f"Scores against {one.axis}", _AXIS.format(axis=one.axis), list(axis_figures(analysis, one)))
        for one in analysis.axes
    ]


def _other_sizes(analysis: Analysis) -> list[Section]:
    if analysis.x is None:
        return []
    name = SIZE_AXES[analysis.x]
    return [(f"Metrics against {name}", _OTHER_SIZE.format(name=name), list(size_axis_figures(analysis, analysis.x)))]


def _pools(analysis: Analysis, of: str) -> Iterator[Panel]:
    """Pools of several tasks; a kind with only one has that task's own figure."""
    return (pool_panel(analysis, pool) for pool in analysis.pools if pool.of == of and len(pool.tasks) > 1)


def _gains(analysis: Analysis, keys: Sequence[Key]) -> Iterator[Panel]:
    return (panel for key in keys if (panel := gain_panel(analysis, key)) is not None)


def to_html(analysis: Analysis, title: str, sections: Sequence[Section]) -> str:
    """The page, with its figures embedded and links to the files beside it."""
    environment = Environment(
        loader=PackageLoader("bigchem.sweep.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(size=size_name, estimate=estimate_text, best=best_size, exponent=exponent)
    keys: list[Key] = list(dict.fromkeys((c.task, c.metric) for c in analysis.cells))
    return environment.get_template("report.html.j2").render(
        title=title,
        analysis=analysis,
        palette=palette_css(":root", "".join(panel.inline for _, _, panels in sections for panel in panels)),
        sections=sections,
        headline_rows=paired_rows(analysis, analysis.headline.items()),
        all_rows=paired_rows(analysis, keys),
        trends=trend_rows(analysis),
        flops_slopes=_flops_slopes(analysis),
        slopes=[analysis.trends[key].per_decade for key in analysis.trends],
        lowest=_lowest(analysis),
        contrasts={of: contrast(analysis.pools, of) for of in ("headline", "loss")},
        fits=fit_rows(analysis),
        beyond=[{**row, "estimate": Estimate(row["value"], row["low"], row["high"])} for row in beyond_rows(analysis)],
        isoflops=analysis.isoflops,
        definitions=_definitions(analysis),
        runs=analysis.results.every_run,
        shared=_shared(analysis.results.every_run),
    )


def _flops_slopes(analysis: Analysis) -> list[Estimate | None]:
    """Of each trend, per decade of FLOPs; empty if no trend has one."""
    flops = analysis.results.shared_flops
    found = [trend.per_decade_of(flops) for trend in analysis.trends.values()]
    return found if any(found) else []


def _lowest(analysis: Analysis) -> float:
    """The lowest value that a pooled headline metric can have."""
    pooled = (gain for gain in analysis.gains if analysis.headline.get(gain.task) == gain.metric and gain.scale.bounded)
    return min((gain.scale.lowest for gain in pooled), default=0.0)


def _definitions(analysis: Analysis) -> list[Row]:
    from bigchem.evaluate.protocol.definitions import DEFINITIONS

    first: dict[Key, Row] = {}
    for score in analysis.results.scores:
        better = "higher" if score.scale.higher_is_better else "lower"
        row = first.setdefault(
            (score.task, score.metric),
            {"task": score.task, "metric": score.metric, "better": better, "definition": "", "meaning": "", "note": ""},
        )
        row["definition"] = row["definition"] or score.definition
        row["meaning"] = DEFINITIONS.get(row["definition"], "")
        row["note"] = row["note"] or score.note
    return list(first.values())


def _shared(runs: Sequence[Run]) -> Row:
    """What all runs should have in common: every value that occurs."""
    return {
        "data fingerprint": sorted({run.fingerprint for run in runs if run.fingerprint}),
        "split": sorted({run.split for run in runs if run.split}),
        "decoding": sorted({run.decoding for run in runs if run.decoding}),
        "protocol": sorted({run.protocol for run in runs if run.protocol}),
    }
