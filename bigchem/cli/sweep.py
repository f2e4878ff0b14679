"""The verbs of `bigchem sweep`: many runs, and what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bigchem.cli.program import Json, Set
from bigchem.cli.runs import Cluster, Csv, Markdown, Summary, say_status, show_status
from bigchem.cli.submission_options import Asked, cluster_options

app = typer.Typer(no_args_is_help=True, help="Many runs over sizes, mixtures and seeds, and what they show.")

Grid = Annotated[str, typer.Argument(help="Sweep (TOML), or a shipped one: demo-sweep.")]


@app.command("submit")
@cluster_options()
def sweep_submit(
    grid: Grid,
    asked: Asked,
    cluster: Cluster = "local",
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time (of each array), instead of the profile's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List arrays and runs; write nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="On Slurm too: stay until all runs are over.")] = False,
    overrides: Set = None,
) -> None:
    """Submit every run of a sweep that is not finished: on Slurm as one array for each shape of job.

    On this machine: wait for them, with progress.

    Example: bigchem sweep submit demo-sweep --set base_set.data.path=data/demo --dry-run

    Example: bigchem sweep submit demo-sweep --cluster a100 --time 2:00:00 --dry-run
    """
    from bigchem.launch.runs.prepare import absolute
    from bigchem.launch.workloads import sweep
    from bigchem.sweep.grid import load_grid, sweep_runs

    read, (profile, options) = load_grid(grid, tuple(overrides or ())), asked.of(cluster)
    if max_concurrent is not None:
        profile = profile.model_copy(update={"max_concurrent": max_concurrent})
    runs = sweep_runs(read, profile, asked.changes)
    if dry_run:
        print(sweep.dry_run_text(runs))
        return
    sweep.submit_sweep(runs, read.name, say_status, options)
    if wait and profile.executor == "slurm":
        sweep.wait_for_all([absolute(run.config).run_dir for run in runs], say_status)


@app.command("status")
def sweep_status(
    grid: Grid,
    as_json: Json = False,
    summary: Summary = False,
    markdown: Markdown = False,
    as_csv: Csv = False,
    overrides: Set = None,
) -> None:
    """Show every run of a sweep, started or not. Slurm is asked once for all of them.

    Example: bigchem sweep status demo-sweep --summary
    """
    from bigchem.launch.runs.status import statuses
    from bigchem.sweep.grid import load_runs

    rows = statuses([config.run_dir for config in load_runs(grid, tuple(overrides or ()))])
    show_status(rows, as_json=as_json, summary=summary, markdown=markdown, as_csv=as_csv)


@app.command("cancel")
def sweep_cancel(
    grid: Grid,
    now: Annotated[bool, typer.Option("--now", help="End the jobs at once; what is not saved is lost.")] = False,
    overrides: Set = None,
) -> None:
    """Tell every run of a sweep to save and stop. `bigchem sweep submit` goes on with them later.

    Example: bigchem sweep cancel demo-sweep
    """
    from bigchem.launch.cancel import cancel_all
    from bigchem.sweep.grid import load_runs

    cancel_all([config.run_dir for config in load_runs(grid, tuple(overrides or ()))], print, now=now)


@app.command("results")
def sweep_results(
    grid: Grid,
    metric: Annotated[
        list[str] | None, typer.Option(help="TASK:METRIC instead of each task's headline (repeatable).")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: every metric, as `sweep report` reads it.")] = False,
    as_json: Json = False,
    overrides: Set = None,
) -> None:
    """Show the metrics of every run of a sweep with their 95 % intervals, and which runs have none yet, and why.

    Example: bigchem sweep results demo-sweep --metric captioning:loss --metric forward:top1
    """
    from bigchem.base.progress import tables
    from bigchem.launch.runs.status import statuses
    from bigchem.sweep import outcome
    from bigchem.sweep.grid import load_runs

    run_dirs = [config.run_dir for config in load_runs(grid, tuple(overrides or ()))]
    found = [outcome.outcome(*each) for each in zip(run_dirs, statuses(run_dirs), strict=True)]
    if as_json:
        print(json.dumps(outcome.to_json(found), indent=1))
    elif as_csv:
        print(outcome.to_csv(found), end="")
    else:
        tables().print(outcome.table(found, tuple(metric or ())))


@app.command("report")
def sweep_report(
    results: Annotated[
        list[Path], typer.Argument(help="results.json, score tables (.csv, .json), or folders to search.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html, CSV and figures.")] = Path("report"),
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

    Example: bigchem sweep report runs/demo --out report

    Example: bigchem sweep report docs/tables/molt5-*.csv --out report --extrapolate 3e9
    """
    from bigchem.base.progress import Progress, tables
    from bigchem.sweep.report import write_report
    from bigchem.sweep.report.output_folder import check_written

    write_report.check_place(out)
    if tensorboard is not None:
        check_written(tensorboard)
    analysis = write_report.study(
        results,
        metric or (),
        allow_mixed=allow_mixed,
        independent=independent,
        extrapolate=extrapolate or (),
        beyond_a_decade=beyond_a_decade,
        progress=Progress(),
    )
    page = write_report.write(analysis, out, title)
    if tensorboard is not None:
        from bigchem.sweep.report.tensorboard import write_board

        write_board(analysis, tensorboard)
    if as_json:
        print(json.dumps(write_report.summary(analysis, page), indent=2, allow_nan=False))
        return
    tables().print(write_report.terminal_table(analysis))
    print(analysis.claim)
    print(f"report: {page}")
