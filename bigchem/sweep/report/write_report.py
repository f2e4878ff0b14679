"""A sweep's report: one HTML page that works offline, CSV tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bigchem.base.atomic import write_atomically
from bigchem.base.printable import csv_text, markup
from bigchem.base.progress import Progress
from bigchem.sweep.analysis.analyse import Analysis, analyse, check
from bigchem.sweep.report.latex import latex_tables
from bigchem.sweep.report.markdown import markdown
from bigchem.sweep.report.output_folder import check_written, replace_written
from bigchem.sweep.report.tables import TABLES, Row, estimate_text, paired_rows, tables
from bigchem.sweep.scores.aggregate import size_name
from bigchem.sweep.scores.example_draws import example_draws
from bigchem.sweep.scores.records import LOSS, REGIMES, SizeAxis
from bigchem.sweep.scores.results import load
from bigchem.tasks import Tasks

if TYPE_CHECKING:
    from rich.table import Table


def study(
    paths: Iterable[str | Path],
    metrics: Sequence[str] = (),
    *,
    allow_mixed: bool = False,
    allow_unequal_budgets: bool = False,
    independent: bool = False,
    extrapolate: Sequence[float] = (),
    beyond_a_decade: bool = False,
    keep_diverged: bool = False,
    at: Sequence[str] = (),
    x: SizeAxis | None = None,
    tasks: Tasks | None = None,
    shown: Mapping[Path, Path] | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Reads results (see results.load), resamples the predictions that lie beside them, and analyses both.

    independent: do not read predictions; all runs are then treated as independent. keep_diverged, x: see analyse. at,
    shown: see load. tasks: of score tables.
    """
    progress = progress or Progress(quiet=True)
    results = load(
        paths, allow_mixed, progress, tasks, allow_unequal_budgets=allow_unequal_budgets, at=at, shown=shown or {}
    )
    check(results, metrics, extrapolate, beyond_a_decade, x)  # before reading predictions, which may take minutes
    draws, notes = (None, ()) if independent else example_draws(results, progress)
    if notes:
        results = replace(results, notes=(*results.notes, *notes))
    return analyse(
        results,
        metrics,
        draws=draws.values if draws is not None else None,
        extrapolate=extrapolate,
        beyond_a_decade=beyond_a_decade,
        keep_diverged=keep_diverged,
        x=x,
    )


def check_out_dir(out_dir: str | Path) -> None:
    """UserError if write would refuse out_dir; call it before the analysis, which may take minutes."""
    check_written(Path(out_dir) / "figures")


def write(analysis: Analysis, out_dir: str | Path, title: str = "Scale sweep") -> Path:
    """Writes report.html, report.md, the CSV files of tables.TABLES, latex/*.tex, and figures/*.svg, *.png, *.pdf and
    *.csv into out_dir; returns the page's path. UserError if figures/ holds a file that no report wrote."""
    from bigchem.sweep.report.page import sections_of, to_html

    out = Path(out_dir)
    sections = sections_of(analysis)
    with replace_written(out / "figures") as figures:  # an earlier report's would pass for this one's
        for panel in (panel for _, _, panels in sections for panel in panels):
            (figures / f"{panel.name}.svg").write_text(panel.svg, encoding="utf-8")
            (figures / f"{panel.name}.png").write_bytes(panel.png)
            (figures / f"{panel.name}.pdf").write_bytes(panel.pdf)
            (figures / f"{panel.name}.csv").write_text(panel.csv, encoding="utf-8")
    (out / "latex").mkdir(exist_ok=True)
    for name, text in latex_tables(analysis).items():
        write_atomically(out / "latex" / f"{name}.tex", text)
    for name, rows in tables(analysis).items():
        write_atomically(out / f"{name}.csv", csv_text(TABLES[name], rows))
    write_atomically(out / "report.md", f"# {title}\n\n{markdown(analysis)}")
    page = out / "report.html"
    write_atomically(page, to_html(analysis, title, sections))
    return page


def summary(analysis: Analysis, page: Path) -> Row:
    """The analysis as plain data, for --json."""
    return {
        "report": str(page),
        "claim": analysis.claim,
        "sentences": list(analysis.sentences),
        "notes": list(analysis.notes),
        "headline": analysis.headline,
        **tables(analysis),
    }


def terminal_table(analysis: Analysis) -> Table:
    """Each task's loss and drawn metrics, one row per size."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    for name in ("size", *REGIMES, "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    listed = [(task, metric) for task in analysis.headline for metric in (LOSS, *_drawn(analysis, task))]
    for task, metric in listed:
        for index, row in enumerate(paired_rows(analysis, [(task, metric)])):
            values = ("–" if row[regime] is None else f"{row[regime].value:.3f}" for regime in REGIMES)
            name = "" if index else markup(f"{task} {metric}")
            table.add_row(name, size_name(row["parameters"]), *values, estimate_text(row["gain"], signed=True))
    return table


def _drawn(analysis: Analysis, task: str) -> list[str]:
    """A task's drawn metrics, without the loss."""
    return [metric for found, metric in analysis.shown if found == task and metric != LOSS]
