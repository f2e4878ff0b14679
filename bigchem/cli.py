"""The command line: one subcommand per verb. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bigchem import cli_data, program
from bigchem.errors import UserError
from bigchem.program import Json, Set

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
sweep_app = typer.Typer(no_args_is_help=True, help="Many runs over sizes, mixtures and seeds, and what they show.")
app.add_typer(cli_data.app, name="data")
app.add_typer(sweep_app, name="sweep")

Cluster = Annotated[str, typer.Option(help="A name in slurm/clusters/ or a path to a cluster profile.")]


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """One T5 for chemistry and language: data, training, Slurm, evaluation, sweeps."""


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="Run configuration (TOML), or a shipped one: demo, small, base, ...")],
    profile: Annotated[
        str | None, typer.Option(metavar="START:STOP", help="Profile these steps into RUN/profile: train.profile.")
    ] = None,
    overrides: Set = None,
) -> None:
    """Train in this process, resuming what its run folder holds. Under torchrun or srun: one rank of the run.

    Exits with 0 when finished, 2 after a mistake that is told, 3 when a person stopped the run, and 75 when it is to be
    started again: preempted, out of time, hung, or another rank is gone. 1 is anything else.

    Example: bigchem train demo --set data.path=data/demo --set train.steps=100
    """
    from bigchem.launch.job import run_here
    from bigchem.train.leave import EXIT_REQUEUE, EXIT_STOPPED

    if profile is not None:
        overrides = [*(overrides or ()), f"train.profile={json.dumps(profile)}"]
    state = run_here(_run_config(config, overrides))
    raise typer.Exit({"stopped": EXIT_STOPPED, "preempted": EXIT_REQUEUE}.get(state, 0))


@app.command()
def submit(
    config: Annotated[str, typer.Argument(help="Run configuration (TOML), or a shipped one.")],
    cluster: Cluster = "local",
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes, instead of the profile's.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(min=0, help="GPUs of a node, instead of the profile's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show configuration and sbatch text; write nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the run is over.")] = False,
    overrides: Set = None,
) -> None:
    """Submit a run through submitit: to Slurm, or to processes on this machine.

    Example: bigchem submit base --cluster slurm/clusters/h100.toml --nodes 2 --dry-run
    """
    from bigchem.launch import submit as launch
    from bigchem.launch.cluster import load_profile

    run_config = _run_config(config, overrides)
    profile = load_profile(cluster, nodes=nodes, gpus_per_node=gpus_per_node)
    if dry_run:
        print(launch.dry_run(run_config, profile))
        return
    submitted = launch.submit(run_config, profile)
    print(f"{submitted.run_dir}: {submitted.note}")
    if wait:
        launch.wait(submitted, _say_status)


@app.command()
def status(
    runs: Annotated[Path, typer.Argument(help="Run folder, or the folder that holds run folders.")] = Path("runs"),
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every two seconds, until interrupted.")] = False,
) -> None:
    """Show what runs are doing: state, step, loss, speed, last checkpoint.

    Example: bigchem status runs --watch
    """
    from bigchem.launch.status import all_runs, table, to_json
    from bigchem.progress import tables

    console = tables()
    while True:
        rows = all_runs(runs)
        if watch:
            console.clear()
        if as_json:
            print(json.dumps(to_json(rows), indent=1))
        else:
            console.print(table(rows))
        if not watch:
            return
        time.sleep(2)


@app.command()
def evaluate(
    subject: Annotated[Path, typer.Argument(help="A run folder, or a consolidated model's folder (then --data).")],
    data: Annotated[str | None, typer.Option(help="Data folder or its URL; default: the run's own.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task (repeatable).")] = None,
    out: Annotated[Path | None, typer.Option(help="Where results go; default: RUN/results or MODEL/results.")] = None,
    overrides: Set = None,
) -> None:
    """Predict and score. Settings are those of [evaluate]: --set split=valid, --set num_beams=4, --set max_rows=100.

    Example: bigchem evaluate runs/demo/1m-all-s0 --set num_beams=4
    """
    from bigchem.launch.evaluate import evaluate_path

    results = evaluate_path(subject, data, tuple(task or ()), out, tuple(overrides or ()))
    print((results.parent / "table.md").read_text(encoding="utf-8"))
    print(results)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="MolT5's TSV, JSONL or CSV; plain or .gz.")],
    task: Annotated[str, typer.Option(help="captioning, generation, forward, retrosynthesis or actions.")],
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for 95 % intervals; 0: none.")] = 1000,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    as_json: Json = False,
) -> None:
    """Score a file of predictions by the published protocol.

    Example: bigchem score predictions/captioning.jsonl --task captioning
    """
    import os

    from bigchem.evaluate.score import score_file, table, to_json
    from bigchem.progress import tables
    from bigchem.tasks import check_labelled

    check_labelled(task, "--task")
    scores = score_file(task, file, bootstrap=bootstrap, workers=workers or os.cpu_count() or 1)
    if as_json:
        print(json.dumps(to_json(scores), indent=1))
    else:
        tables().print(table(scores))


@sweep_app.command("submit")
def sweep_submit(
    grid: Annotated[str, typer.Argument(help="Sweep (TOML), or a shipped one: demo-sweep.")],
    cluster: Cluster = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs; write nothing.")] = False,
    overrides: Set = None,
) -> None:
    """Submit every run of a sweep that is not finished. On this machine: wait for them, with progress.

    Example: bigchem sweep submit demo-sweep --set base_set.data.path=data/demo --dry-run
    """
    from bigchem.launch.cluster import load_profile
    from bigchem.launch.submit import submit_all
    from bigchem.sweep.grid import load_runs

    runs = load_runs(grid, tuple(overrides or ()))
    if dry_run:
        for config in runs:
            print(
                f"{config.run_dir}  {config.model.preset}  {' '.join(config.data.mixture)}  {config.train.steps} steps"
            )
        return
    submit_all(runs, load_profile(cluster), _say_status)


@sweep_app.command("status")
def sweep_status(
    grid: Annotated[str, typer.Argument(help="Sweep (TOML), or a shipped one.")],
    as_json: Json = False,
    overrides: Set = None,
) -> None:
    """Show every run of a sweep, started or not.

    Example: bigchem sweep status demo-sweep
    """
    from bigchem.launch.status import run_status, table, to_json
    from bigchem.progress import tables
    from bigchem.sweep.grid import load_runs

    rows = [run_status(config.run_dir) for config in load_runs(grid, tuple(overrides or ()))]
    if as_json:
        print(json.dumps(to_json(rows), indent=1))
    else:
        tables().print(table(rows))


@sweep_app.command("report")
def sweep_report(
    results: Annotated[list[Path], typer.Argument(help="results.json files, or folders that hold them.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, CSV and figures.")] = Path("report"),
    title: Annotated[str, typer.Option(help="Title of the report.")] = "Scale sweep",
) -> None:
    """Plot metrics against parameters: what tools/scale_sweep.py does.

    Example: bigchem sweep report runs/demo --out report
    """
    from bigchem.sweep.report import build

    print(build(results, out, title=title))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and report.")] = Path("demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove an earlier demo first.")] = False,
) -> None:
    """The whole path on the embedded corpus, on this machine: data, a sweep of six runs, one report. Under 6 minutes.

    Example: bigchem demo --out demo
    """
    from bigchem.demo import run_demo

    run_demo(out, fresh=fresh)


@app.command()
def doctor(
    runs: Annotated[Path, typer.Option(help="Folder for runs, whose disk is checked.")] = Path("runs"),
    processes: Annotated[int, typer.Option(min=0, help="Processes of the real all-reduce; 0: skip it.")] = 2,
    job: Annotated[bool, typer.Option("--job", help="Examine the job that this process is a rank of.")] = False,
    cluster: Annotated[str | None, typer.Option(help="Submit a job that examines its nodes, and wait for it.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes of that job, instead of the profile's.")] = None,
    as_json: Json = False,
) -> None:
    """Check this machine: versions, accelerator, compiler, disk, Slurm, and a real all-reduce between processes. With
    --cluster, or inside a job with --job: its nodes, GPUs, network and shared folder. Exits with 2 if a check fails.

    Example: bigchem doctor

    Example: bigchem doctor --cluster slurm/clusters/h100.toml --nodes 2

    Example: torchrun --nproc-per-node 8 -m bigchem.cli doctor --job
    """
    from bigchem.launch import doctor as checks
    from bigchem.launch import doctor_job

    if job and cluster is not None:
        raise UserError("--job and --cluster do not go together", "doctor", "--job is for inside a job")
    if nodes is not None and cluster is None:
        raise UserError("--nodes goes with --cluster", "doctor")
    report: dict[str, Any] | None = None
    if cluster is not None:
        from bigchem.launch.cluster import load_profile

        report = doctor_job.on_cluster(
            load_profile(cluster, nodes=nodes), runs, lambda line: print(line, file=sys.stderr, flush=True)
        )
    elif job:
        report, lead = doctor_job.here(runs)
        if not lead:  # rank 0 tells; a launcher that sees another end badly may end it before it has
            return
    found = checks.examine(runs, processes) if report is None else doctor_job.checks_of(report)
    if as_json:
        print(json.dumps(report or [vars(check) for check in found], indent=1))
    else:
        from bigchem.progress import tables

        if report is not None:
            tables().print(doctor_job.rank_table(report), "")
        tables().print(checks.table(found))
    if any(check.verdict == "fail" for check in found):
        raise typer.Exit(2)


def _run_config(name: str, overrides: list[str] | None) -> Any:
    from bigchem import shipped, strict
    from bigchem.config import RunConfig

    return strict.load(RunConfig, shipped.find("recipes", name, ".toml"), tuple(overrides or ()))


def _say_status(row: Any) -> None:
    loss = "" if row.loss is None else f"  loss {row.loss:.4f}"
    reason = f"  {row.reason}" if row.reason else ""
    print(f"{time.strftime('%H:%M:%S')}  {row.run}  {row.state}  {row.step}/{row.steps}{loss}{reason}", flush=True)


def main() -> None:
    """Entry point of `bigchem`."""
    program.run(app)


if __name__ == "__main__":
    main()
