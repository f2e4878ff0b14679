"""`bigchem`: the command line, one subcommand per verb. Each verb imports what it needs when it runs."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bigchem.base.errors import UserError
from bigchem.cli import bench, data, evaluate, program, runs, sweep
from bigchem.cli.export import card, export, push
from bigchem.cli.fine_tune import fine_tune
from bigchem.cli.plan import plan
from bigchem.cli.program import Json, Set
from bigchem.cli.runs import run_config
from bigchem.cli.submission_options import Requested, cluster_options

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.add_typer(sweep.app, name="sweep")
app.add_typer(runs.app)
app.add_typer(evaluate.app)
app.add_typer(bench.app, name="bench")
app.command()(export)
app.command()(card)
app.command()(push)
app.command()(plan)
app.command("fine-tune")(fine_tune)


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; accepted anywhere.")] = False,
) -> None:
    """One T5 for chemistry and language: data, training, Slurm, evaluation, sweeps."""


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(help="Run configuration (TOML file), or a shipped one: demo, small, base, ...")
    ],
    profile: Annotated[
        str | None,
        typer.Option(metavar="START:STOP", help="Profile these steps; traces go to RUN/profile (train.profile)."),
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Start from these weights, such as an exported model (model.init_from).")
    ] = None,
    overrides: Set = None,
) -> None:
    """Train in this process, resuming from the run folder. Under torchrun or srun: one rank of the run.

    Exit codes: 0 finished; 2 user error; 3 stopped by the user; 75 to be restarted, after preemption, the time limit, a
    hang or a lost rank; 1 anything else.

    Example: bigchem train demo --set data.path=data/demo --set train.steps=100
    """
    from bigchem.launch.job import run_here
    from bigchem.run.lifecycle import exit_code

    if profile is not None:
        overrides = [*(overrides or ()), f"train.profile={json.dumps(profile)}"]
    if init_from is not None:
        overrides = [*(overrides or ()), f"model.init_from={json.dumps(init_from)}"]
    raise typer.Exit(exit_code(run_here(run_config(config, overrides))))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and report.")] = Path("demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete an earlier demo first.")] = False,
) -> None:
    """Run everything on this machine with the embedded corpus, in minutes: data, a sweep of twelve runs, a report.

    Example: bigchem demo --out demo
    """
    from bigchem.cli.demo import run_demo

    run_demo(out, fresh=fresh)


@app.command()
@cluster_options(after=False)
def doctor(
    requested: Requested,
    runs: Annotated[Path, typer.Option(help="Folder for runs; the check covers its disk.")] = Path("runs"),
    processes: Annotated[int, typer.Option(min=0, help="Processes for the all-reduce; 0: skip it.")] = 2,
    job: Annotated[bool, typer.Option("--job", help="Check the job that this process is a rank of.")] = False,
    cluster: Annotated[
        str | None, typer.Option(help="Cluster profile: submit a job that checks its nodes, and wait for the result.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Also check a run's memory, time and disk, here or on --cluster's nodes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine: versions, accelerator, compiler, disk, Slurm, and an all-reduce between processes.

    With --cluster, or with --job inside a job, check the job's nodes instead: GPUs, network, shared folder. With
    --config, also check a run's memory, time and disk. Exits with 2 if a check fails.

    Example: bigchem doctor

    Example: bigchem doctor --config demo

    Example: bigchem doctor --cluster slurm/clusters/h100.toml --nodes 2

    Example: torchrun --nproc-per-node 8 -m bigchem doctor --job
    """
    from bigchem.launch.doctor import job as doctor_job
    from bigchem.launch.doctor import machine as checks

    if job and cluster is not None:
        raise UserError("--job and --cluster exclude each other", "doctor", "--job is for use inside a job")
    if cluster is None:
        requested.refuse()
    if job and config is not None:
        raise UserError("--job and --config exclude each other", "doctor", "run it on the login node with --cluster")
    fit = []
    if config is not None:
        from bigchem.cli.runs import run_config

        fit = checks.of_run(run_config(config, None), requested.resolve(cluster or "local")[0])
    report: dict[str, Any] | None = None
    if cluster is not None:
        profile, options = requested.resolve(cluster)
        report = doctor_job.on_cluster(
            profile, runs, lambda line: print(line, file=sys.stderr, flush=True), options=options
        )
    elif job:
        report, lead = doctor_job.here(runs)
        if not lead:  # only rank 0 reports and fails: a launcher may kill it as soon as another rank exits non-zero
            return
    found = [*(checks.examine(runs, processes) if report is None else doctor_job.checks_of(report)), *fit]
    if as_json:
        listed = [vars(check) for check in found]
        print(json.dumps(listed if report is None else {**report, "checks": listed}, indent=1))
    else:
        from bigchem.base.progress import tables

        if report is not None:
            tables().print(doctor_job.rank_table(report), "")
        tables().print(checks.table(found))
    if any(check.verdict == "fail" for check in found):
        raise typer.Exit(2)


def main() -> None:
    """Entry point of `bigchem`."""
    program.run(app)
