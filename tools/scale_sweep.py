"""Analyses a sweep: result files -> report.html, metrics.csv, gain.csv and figures.

python tools/scale_sweep.py runs/ --out sweep-report
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bigchem import program

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def scale_sweep(
    results: Annotated[list[Path], typer.Argument(help="results.json, a CSV of scores, or folders to search.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    *,
    metric: Annotated[list[str] | None, typer.Option(help="TASK:METRIC to draw instead of the headlines.")] = None,
    title: Annotated[str, typer.Option(help="The page's title.")] = "Scale sweep",
    as_json: Annotated[bool, typer.Option("--json", help="Print the analysis as JSON.")] = False,
    allow_mixed: Annotated[bool, typer.Option(help="Analyse other data or definitions side by side.")] = False,
) -> None:
    """Every metric against model size, and the gain of training tasks together.

    Example: python tools/scale_sweep.py runs/demo --out report

    A CSV has the columns parameters,task,regime,metric,value,low,high,seed,run.
    """
    from bigchem.sweep import report
    from bigchem.sweep.analysis import analyse
    from bigchem.sweep.results import load

    analysis = analyse(load(results, allow_mixed), metric or ())
    page = report.write(analysis, out, title)
    if as_json:
        print(json.dumps(report.summary(analysis, page), indent=2, allow_nan=False))
        return
    from rich.console import Console

    console = Console()
    console.print(report.terminal_table(analysis))
    print(analysis.sentences[0])
    print(f"report: {page}")


if __name__ == "__main__":
    program.run(app)
