"""`bigchem doctor`: whether a machine, or the nodes of a job, can train."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bigchem.base.errors import UserError
from bigchem.cli.options import values
from bigchem.cli.options.submission import Requested, cluster_options
from bigchem.cli.program import Json


@cluster_options(after=False)
def doctor(
    requested: Requested,
    runs: Annotated[Path, typer.Option(help="Folder for runs, whose disk is checked.")] = Path("runs"),
    processes: Annotated[int, typer.Option(min=0, help="Processes for the all-reduce; 0: skip it.")] = 2,
    job: Annotated[bool, typer.Option("--job", help="Check the job that this process is a rank of.")] = False,
    cluster: Annotated[
        str | None, values.cluster("Submit a job there that checks its nodes, and wait for the result.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG", help="Also check this run's memory, time and disk, here or on --cluster's nodes."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine: versions, accelerator, compiler, disk, Slurm, and an all-reduce between processes.

    With --cluster, or with --job inside a job, check the job's nodes instead: GPUs, network, shared folder. With
    --config, also check a run's memory, time and disk. Exits with 2 if a check fails.

    Example: bigchem doctor

    Example: bigchem doctor --config demo

    Example: bigchem doctor --cluster h100 --nodes 2

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
