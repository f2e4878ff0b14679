"""Analyses a sweep: result files -> report.html, CSV files and figures.

python tools/scale_sweep.py runs/ --out sweep-report
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bigchem import program
from bigchem.program import Json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def scale_sweep(
    results: Annotated[
        list[Path], typer.Argument(help="results.json, score tables (.csv, .json), or folders to search.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    *,
    metric: Annotated[
        list[str] | None, typer.Option(help="TASK:METRIC to draw instead of the headlines (repeatable).")
    ] = None,
    title: Annotated[str, typer.Option(help="The page's title.")] = "Scale sweep",
    extrapolate: Annotated[
        list[float] | None,
        typer.Option(metavar="PARAMETERS", help="Read the curves at this size too, as in 3e9 (repeatable)."),
    ] = None,
    beyond_a_decade: Annotated[
        bool, typer.Option("--beyond-a-decade", help="Allow --extrapolate further than tenfold beyond a curve's sizes.")
    ] = False,
    independent: Annotated[
        bool, typer.Option("--independent", help="Do not compare predictions; quicker, with wider intervals.")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for the same as TensorBoard scalars and hparams.")
    ] = None,
    as_json: Json = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Analyse other data or definitions side by side.")
    ] = False,
) -> None:
    """Every metric against model size, and the gain of training tasks together.

    A score table has the columns parameters,task,regime,metric,value,low,high,seed,run; docs/analysis.md has them all.

    Example: python tools/scale_sweep.py runs/demo --out report

    Example: python tools/scale_sweep.py docs/tables/molt5-*.csv --out report --extrapolate 3e9
    """
    from bigchem.progress import Progress, tables
    from bigchem.sweep import report
    from bigchem.sweep.written import check_written

    report.check_place(out)
    if tensorboard is not None:
        check_written(tensorboard)
    analysis = report.study(
        results,
        metric or (),
        allow_mixed=allow_mixed,
        independent=independent,
        extrapolate=extrapolate or (),
        beyond_a_decade=beyond_a_decade,
        progress=Progress(),
    )
    page = report.write(analysis, out, title)
    if tensorboard is not None:
        from bigchem.sweep.board import write_board

        write_board(analysis, tensorboard)
    if as_json:
        print(json.dumps(report.summary(analysis, page), indent=2, allow_nan=False))
        return
    tables().print(report.terminal_table(analysis))
    print(analysis.claim)
    print(f"report: {page}")


if __name__ == "__main__":
    program.run(app)
