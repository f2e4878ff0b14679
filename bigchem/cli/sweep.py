"""`bigchem sweep`: grids of runs, and their report."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from bigchem.base.errors import UserError
from bigchem.cli.options import values
from bigchem.cli.options.submission import Requested, cluster_options
from bigchem.cli.options.verbs import App
from bigchem.cli.program import Json
from bigchem.cli.runs import Cluster, Csv, Markdown, Summary, print_status, show_status

app = App(help="Grids of runs over sizes, mixtures and seeds, and their report.")

Grid = Annotated[str, values.config(values.SWEEPS, "Sweep")]
SetSweep = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field of the sweep: --set base_set.train.steps=300 (repeatable).",
    ),
]
At = Annotated[
    list[str] | None,
    typer.Option(
        metavar="AXIS=VALUE",
        help="Value of a sweep axis to analyse, such as optimizer.lr=6e-4 (repeatable).",
    ),
]


@app.command("submit")
@cluster_options()
def sweep_submit(
    grid: Grid,
    requested: Requested,
    cluster: Cluster = "local",
    max_concurrent: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum concurrent runs per array; default: the profile's. On this machine's CPU, they divide its "
            "cores.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List arrays, runs, hours and disk; write nothing.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Start only runs that will finish within this time (12h, 90m) from now. Not on Slurm."
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="GPU model, as in `bigchem plan`, for the speeds of a dry run; default: the profile's.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="On Slurm: wait until all runs have ended.")] = False,
    overrides: SetSweep = None,
) -> None:
    """Submit the unfinished runs of a sweep; on Slurm, as one job array per set of resources.

    With the local profile, runs them here, waits, and shows progress.

    Example: bigchem sweep submit demo-sweep --set base_set.data.path=data/demo --dry-run

    Example: bigchem sweep submit demo-sweep --set base_set.data.path=data/demo --budget 2h

    Example: bigchem sweep submit demo-sweep --cluster a100 --time 2:00:00 --dry-run
    """
    from bigchem.launch.runs.prepare import absolute
    from bigchem.launch.workloads import sweep
    from bigchem.sweep import select
    from bigchem.sweep.grid import load_grid, sweep_runs

    read, (profile, options) = load_grid(grid, tuple(overrides or ())), requested.resolve(cluster)
    if max_concurrent is not None:
        profile = sweep.at_a_time(profile, max_concurrent, requested.changes)
    if dry_run:
        runs = sweep_runs(read, profile, requested.changes, select.planned_runs(read))
        print(sweep.dry_run_text(runs))
        print(sweep.cost_text(runs, gpu))
        return
    not_started, ends = list[Path](), None if budget is None else time.monotonic() + sweep.read_budget(budget)
    for configs in select.stages(read, print):
        runs = sweep_runs(read, profile, requested.changes, configs)
        left = None if ends is None else ends - time.monotonic()
        short = any(select.is_short(read, config) for config in configs)
        not_started += sweep.submit_sweep(runs, read.name, print_status, options, left, may_diverge=short)
        if wait and profile.executor == "slurm":
            sweep.wait_for_all([absolute(run.config).run_dir for run in runs], print_status, may_diverge=short)
    if not_started:
        print(f"not started, as they would not finish within {budget}; the same command continues:")
        print("\n".join(map(str, not_started)))


@app.command("status")
def sweep_status(
    grid: Grid,
    as_json: Json = False,
    summary: Summary = False,
    markdown: Markdown = False,
    as_csv: Csv = False,
    overrides: SetSweep = None,
) -> None:
    """Show every run of a sweep, started or not. Queries Slurm once for all runs.

    Example: bigchem sweep status demo-sweep --summary
    """
    from bigchem.launch.runs.status import statuses
    from bigchem.sweep.grid import load_grid
    from bigchem.sweep.select import planned_runs

    rows = statuses([config.run_dir for config in planned_runs(load_grid(grid, tuple(overrides or ())))])
    show_status(rows, as_json=as_json, summary=summary, markdown=markdown, as_csv=as_csv)


@app.command("cancel")
def sweep_cancel(
    grid: Grid,
    now: Annotated[bool, typer.Option("--now", help="End the jobs at once; unsaved steps are lost.")] = False,
    overrides: SetSweep = None,
) -> None:
    """Make every run of a sweep save and stop. `bigchem sweep submit` continues them.

    Example: bigchem sweep cancel demo-sweep
    """
    from bigchem.launch.cancel import cancel_all
    from bigchem.sweep.grid import load_grid
    from bigchem.sweep.select import planned_runs

    cancel_all([config.run_dir for config in planned_runs(load_grid(grid, tuple(overrides or ())))], print, now=now)


@app.command("results")
def sweep_results(
    grid: Grid,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK:METRIC",
            help="Metric to show instead of the sweep's own or the headline metrics (repeatable).",
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with every metric, for `sweep report`.")] = False,
    as_json: Json = False,
    overrides: SetSweep = None,
) -> None:
    """Show every run's metrics with 95 % intervals, and why a run has none.

    Example: bigchem sweep results demo-sweep --metric captioning:loss --metric generation:maccs
    """
    from bigchem.base.progress import tables
    from bigchem.launch.runs.status import statuses
    from bigchem.sweep import outcome
    from bigchem.sweep.grid import load_grid
    from bigchem.sweep.select import full_runs

    read = load_grid(grid, tuple(overrides or ()))
    run_dirs = [config.run_dir for config in full_runs(read)]
    found = [outcome.outcome(*each) for each in zip(run_dirs, statuses(run_dirs), strict=True)]
    if as_json:
        print(json.dumps(outcome.to_json(found), indent=1))
    elif as_csv:
        print(outcome.to_csv(found), end="")
    else:
        tables().print(outcome.table(found, tuple(metric or ()), read.metrics))


@app.command("archive")
def sweep_archive(
    grid: Grid,
    out: Annotated[Path | None, typer.Option(help="File to write; default: SWEEP.tar.xz.")] = None,
    overrides: SetSweep = None,
) -> None:
    """Pack results and predictions of all finished runs into one small file.

    `sweep report` reads it. Unpacked into the folder of runs, it tells `sweep submit` what is done.

    Example: bigchem sweep archive demo-sweep --out demo.tar.xz
    """
    from bigchem.launch.runs.status import statuses
    from bigchem.sweep import archive
    from bigchem.sweep.grid import load_grid
    from bigchem.sweep.select import planned_runs

    read = load_grid(grid, tuple(overrides or ()))
    file = out or Path(f"{read.name}{archive.SUFFIX}")
    archive.check_name(file)
    runs = planned_runs(read)
    found = list(zip(runs, statuses([run.run_dir for run in runs]), strict=True))
    done = [run for run, status in found if archive.is_done(run, status)]
    left = Counter(status.state for run, status in found if not archive.is_done(run, status))
    if not done:
        raise UserError("no run is finished", f"sweep {read.name}", f"bigchem sweep status {grid} shows where they are")
    archive.write(done, file)
    print(f"{file}: {len(done)} of {len(runs)} runs, {file.stat().st_size / 1e6:.2f} MB")
    if left:
        print(f"not packed: {', '.join(f'{count} {state}' for state, count in left.items())}")


@app.command("report")
def sweep_report(
    results: Annotated[
        list[Path],
        typer.Argument(help="results.json files, score tables (.csv, .json), archives, or folders to search."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html, CSV and figures.")] = Path("report"),
    *,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK:METRIC", help="Metric to draw instead of the headline metrics (repeatable)."),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Scale sweep",
    extrapolate: Annotated[
        list[float] | None,
        typer.Option(metavar="PARAMETERS", help="Also evaluate the curves at this size, such as 3e9 (repeatable)."),
    ] = None,
    beyond_a_decade: Annotated[
        bool, typer.Option("--beyond-a-decade", help="Allow --extrapolate more than tenfold beyond the measured sizes.")
    ] = False,
    independent: Annotated[
        bool, typer.Option("--independent", help="Do not resample predictions: faster, but wider intervals.")
    ] = False,
    keep_diverged: Annotated[
        bool,
        typer.Option("--keep-diverged", help="Include runs that diverged; by default they are named and left out."),
    ] = False,
    at: At = None,
    x: Annotated[
        Literal["non_embedding", "flops"] | None,
        typer.Option("--x", help="Also draw the metrics against parameters without embeddings, or training FLOPs."),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard scalars and hparams of the analysis.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Where score tables' tasks are defined: TOML with [tasks.NAME], data folder, run or model.",
        ),
    ] = None,
    as_json: Json = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Allow results from different data, tasks or metric definitions.")
    ] = False,
    allow_unequal_budgets: Annotated[
        bool,
        typer.Option(
            "--allow-unequal-budgets",
            help="Allow unfinished runs, and sizes or seeds with other steps, tokens, learning rates or schedules; the "
            "report's first sentence says so.",
        ),
    ] = False,
) -> None:
    """Report every metric against model size, and the gain of sharing: joint against single-task training.

    A score table has the columns parameters,task,regime,metric,value,low,high,seed,run; docs/analysis.md defines them.

    Example: bigchem sweep report runs/demo --out report

    Example: bigchem sweep report docs/tables/molt5-*.csv --out report --extrapolate 3e9

    Example: bigchem sweep report scores.csv --tasks recipe.toml
    """
    from bigchem.base.progress import Progress, tables
    from bigchem.data.storage.tasks_at import tasks_at
    from bigchem.sweep.archive import unpacked
    from bigchem.sweep.report import write_report
    from bigchem.sweep.report.output_folder import check_written

    write_report.check_out_dir(out)
    if tensorboard is not None:
        check_written(tensorboard)
    with unpacked(results) as found:
        analysis = write_report.study(
            found,
            metric or (),
            allow_mixed=allow_mixed,
            allow_unequal_budgets=allow_unequal_budgets,
            independent=independent,
            extrapolate=extrapolate or (),
            beyond_a_decade=beyond_a_decade,
            keep_diverged=keep_diverged,
            at=at or (),
            x=x,
            tasks=tasks_at(tasks),
            shown=found,
            progress=Progress(),
        )
    page = write_report.write(analysis, out, title)
    if tensorboard is not None:
        from bigchem.sweep.report.tensorboard import write_tensorboard

        write_tensorboard(analysis, tensorboard)
    if as_json:
        print(json.dumps(write_report.summary(analysis, page), indent=2, allow_nan=False))
        return
    tables().print(write_report.terminal_table(analysis))
    print(analysis.claim)
    print(f"report: {page}")


@app.command("power")
def sweep_power(
    pilot: Annotated[
        list[Path], typer.Argument(help="The pilot: results.json files, score tables, archives, or folders to search.")
    ],
    seeds: Annotated[
        list[int] | None, typer.Option(min=2, help="Seeds of every size (repeatable). Default: 2, 3, 5 and 10.")
    ] = None,
    size: Annotated[
        list[float] | None,
        typer.Option(metavar="PARAMETERS", help="A size of the planned sweep (repeatable). Default: the pilot's."),
    ] = None,
    slope: Annotated[
        float | None,
        typer.Option(min=0, help="Slope of interest, for the number of seeds. Default: the pilot's, which is noisy."),
    ] = None,
    at: At = None,
    as_json: Json = False,
) -> None:
    """Show which slopes of the gain of sharing a sweep can find, from a pilot's noise.

    A slope is per tenfold increase in parameters. A sweep finds it if its 95 % interval excludes zero with 80 %
    power.

    Example: bigchem sweep power runs/demo --seeds 3 --seeds 6

    Example: bigchem sweep power runs/demo --size 2e5 --size 4e6 --size 6e7 --slope 0.02
    """
    from bigchem.base.progress import Progress, tables
    from bigchem.sweep import power
    from bigchem.sweep.archive import unpacked
    from bigchem.sweep.report import write_report

    with unpacked(pilot) as found:
        analysis = write_report.study(found, at=at or (), shown=found, progress=Progress())
    rows = power.power(analysis, seeds or (2, 3, 5, 10), size or (), slope)
    if as_json:
        print(json.dumps(power.to_json(rows), indent=1))
    else:
        tables().print(power.table(rows))
