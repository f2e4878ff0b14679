"""A sweep's report: one HTML page that works offline, CSV tables and figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigchem.strict import write_atomically
from bigchem.sweep.analysis import Analysis, Key, analyse, size_name
from bigchem.sweep.results import LOSS, REGIMES, Run, higher_is_better, load
from bigchem.tasks import TASKS

if TYPE_CHECKING:
    from rich.table import Table

    from bigchem.sweep.figures import Panel
    from bigchem.sweep.fit import Estimate

METRIC_COLUMNS = ("task", "metric", "regime", "parameters", "value", "low", "high", "seeds", "note")
GAIN_COLUMNS = (
    "task",
    "domain",
    "metric",
    "parameters",
    "gain",
    "low",
    "high",
    "seeds",
    "slope",
    "slope_low",
    "slope_high",
    "sizes",
)
Row = dict[str, Any]
Section = tuple[str, str, "list[Panel]"]
"""Heading, explanation, panels."""


def build(
    paths: Iterable[str | Path],
    out_dir: str | Path,
    title: str = "Scale sweep",
    metrics: Sequence[str] = (),
    allow_mixed: bool = False,
) -> Path:
    """Reads result files (see results.load), analyses them and writes the report; returns the page's path."""
    return write(analyse(load(paths, allow_mixed), metrics), out_dir, title)


def write(analysis: Analysis, out_dir: str | Path, title: str = "Scale sweep") -> Path:
    """Writes report.html, metrics.csv, gain.csv, figures/*.svg and *.png into out_dir; returns the page's path."""
    from bigchem.sweep.figures import gain_panel, metric_panel

    out = Path(out_dir)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    measured = [metric_panel(analysis, key) for key in analysis.shown]
    gained = [panel for key in analysis.shown if (panel := gain_panel(analysis, key)) is not None]
    for panel in (*measured, *gained):
        write_atomically(out / "figures" / f"{panel.name}.svg", panel.svg)
        partial = out / "figures" / f".{panel.name}.png.partial"
        partial.write_bytes(panel.png)
        partial.replace(out / "figures" / f"{panel.name}.png")
    write_atomically(out / "metrics.csv", _csv(METRIC_COLUMNS, metric_rows(analysis)))
    write_atomically(out / "gain.csv", _csv(GAIN_COLUMNS, gain_rows(analysis)))
    page = out / "report.html"
    write_atomically(page, _html(analysis, title, measured, gained))
    return page


def metric_rows(analysis: Analysis) -> list[Row]:
    """One row per cell; value, low and high are None where unknown."""
    return [
        {
            "task": cell.task,
            "metric": cell.metric,
            "regime": cell.regime,
            "parameters": cell.parameters,
            **_numbers(cell.estimate, "value", "low", "high"),
            "seeds": len(cell.seeds),
            "note": cell.note,
        }
        for cell in analysis.cells
    ]


def gain_rows(analysis: Analysis) -> list[Row]:
    """One row per size trained both ways, with the slope of its task and metric per decade of parameters."""
    rows = []
    for gain in analysis.gains:
        trend = analysis.trends.get((gain.task, gain.metric))
        rows.append(
            {
                "task": gain.task,
                "domain": "cross" if TASKS[gain.task].cross_domain else "single",
                "metric": gain.metric,
                "parameters": gain.parameters,
                **_numbers(gain.estimate, "gain", "low", "high"),
                "seeds": len(gain.points),
                **_numbers(trend.slope if trend else None, "slope", "slope_low", "slope_high"),
                "sizes": trend.sizes if trend else None,
            }
        )
    return rows


def fit_rows(analysis: Analysis) -> list[Row]:
    """One row per fitted curve: its shape, formula and the errors on left-out sizes."""
    return [
        {
            "task": task,
            "metric": metric,
            "regime": regime,
            "shape": curve.kind,
            "formula": curve.formula,
            "loo_linear": curve.loo["linear"],
            "loo_power": curve.loo.get("power"),
            "sizes": curve.sizes,
        }
        for (task, metric, regime), curve in analysis.curves.items()
    ]


def summary(analysis: Analysis, page: Path) -> Row:
    """The analysis as plain data, for --json."""
    return {
        "report": str(page),
        "sentences": list(analysis.sentences),
        "notes": list(analysis.notes),
        "headline": analysis.headline,
        "metrics": metric_rows(analysis),
        "gains": gain_rows(analysis),
        "fits": fit_rows(analysis),
    }


def terminal_table(analysis: Analysis) -> Table:
    """Of each task, the loss and the drawn metrics: a row per size."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    for name in ("size", *REGIMES, "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    listed = [(task, metric) for task in analysis.headline for metric in (LOSS, *_drawn(analysis, task))]
    for task, metric in listed:
        for index, row in enumerate(_paired(analysis, [(task, metric)])):
            values = ("–" if row[regime] is None else f"{row[regime].value:.3f}" for regime in REGIMES)
            name = "" if index else f"{task} {metric}"
            table.add_row(name, size_name(row["parameters"]), *values, _text(row["gain"], signed=True))
    return table


def _drawn(analysis: Analysis, task: str) -> list[str]:
    """The metrics, other than the loss, that are drawn for a task."""
    return [metric for found, metric in analysis.shown if found == task and metric != LOSS]


def _paired(analysis: Analysis, keys: Iterable[Key]) -> list[Row]:
    """Both regimes and the gain side by side: one row per task, metric and size."""
    gains = {(g.task, g.metric, g.parameters): g.estimate for g in analysis.gains}
    cells = {(c.task, c.metric, c.parameters, c.regime): c for c in analysis.cells}
    rows = []
    for task, metric in keys:
        for size in sorted({c.parameters for c in analysis.cells if (c.task, c.metric) == (task, metric)}):
            together, alone = (cells.get((task, metric, size, regime)) for regime in REGIMES)
            found = [cell for cell in (together, alone) if cell]
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "parameters": size,
                    "together": together.estimate if together else None,
                    "alone": alone.estimate if alone else None,
                    "gain": gains.get((task, metric, size)),
                    "seeds": max(len(cell.seeds) for cell in found),
                    "note": next((cell.note for cell in found if cell.note), ""),
                }
            )
    return rows


def _numbers(estimate: Estimate | None, value: str, low: str, high: str) -> Row:
    if estimate is None:
        return {value: None, low: None, high: None}
    return {value: estimate.value, low: estimate.low, high: estimate.high}


def _csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _text(estimate: Estimate | None, signed: bool = False) -> str:
    if estimate is None:
        return "–"
    sign = "+" if signed else ""
    text = f"{estimate.value:{sign}.3f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def _html(analysis: Analysis, title: str, measured: Sequence[Panel], gained: Sequence[Panel]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from bigchem.sweep.figures import palette_css

    environment = Environment(
        loader=PackageLoader("bigchem.sweep", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(size=size_name, estimate=_text)
    keys: list[Key] = list(dict.fromkeys((c.task, c.metric) for c in analysis.cells))
    return environment.get_template("report.html.j2").render(
        title=title,
        analysis=analysis,
        palette=palette_css(":root"),
        sections=_sections(analysis, measured, gained),
        headline_rows=_paired(analysis, analysis.headline.items()),
        all_rows=_paired(analysis, keys),
        slopes=[
            (task, metric, analysis.trends[task, metric]) for task, metric in keys if (task, metric) in analysis.trends
        ],
        fits=fit_rows(analysis),
        definitions=_definitions(analysis),
        shared=_shared(analysis.results.runs),
    )


def _sections(analysis: Analysis, measured: Sequence[Panel], gained: Sequence[Panel]) -> list[Section]:
    fits = "lines are fits, drawn only within the measured sizes" if analysis.curves else "too few sizes for a fit"
    points = f"Points are means over seeds with 95 % intervals; {fits}."
    gain = "Together minus alone, turned so that up is better; the line is the least-squares slope, where there is one."
    cross_entropy = "Mean token cross-entropy on the split. "
    sections = [
        ("Metrics against model size", points, [panel for panel in measured if panel.metric != LOSS]),
        ("Gain of sharing against model size", gain, [panel for panel in gained if panel.metric != LOSS]),
        ("Loss against model size", cross_entropy + points, [panel for panel in measured if panel.metric == LOSS]),
        ("Gain of sharing in loss", gain, [panel for panel in gained if panel.metric == LOSS]),
    ]
    return [section for section in sections if section[2]]


def _definitions(analysis: Analysis) -> list[Row]:
    from bigchem.evaluate.definitions import DEFINITIONS

    first: dict[Key, Row] = {}
    for score in analysis.results.scores:
        better = "higher" if higher_is_better(score.metric) else "lower"
        row = first.setdefault(
            (score.task, score.metric),
            {"task": score.task, "metric": score.metric, "better": better, "definition": "", "meaning": "", "note": ""},
        )
        row["definition"] = row["definition"] or score.definition
        row["meaning"] = DEFINITIONS.get(row["definition"], "")
        row["note"] = row["note"] or score.note
    return list(first.values())


def _shared(runs: Sequence[Run]) -> Row:
    """What all runs should have in common, every value that occurs."""
    return {
        "data fingerprint": sorted({run.fingerprint for run in runs if run.fingerprint}),
        "split": sorted({run.split for run in runs if run.split}),
        "decoding": sorted({run.decoding for run in runs if run.decoding}),
        "protocol": sorted({run.protocol for run in runs if run.protocol}),
    }
