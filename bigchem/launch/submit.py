"""Submitting runs through submitit, and waiting for them."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem import strict
from bigchem.config import RunConfig
from bigchem.errors import UserError
from bigchem.launch.cluster import ClusterProfile, make_executor, sbatch_text
from bigchem.launch.job import Job
from bigchem.launch.runfolder import absolute, changes, preflight, prepare, refuse_another
from bigchem.launch.status import RunStatus, run_status

POLL_S = 0.5


@dataclass(frozen=True)
class Submitted:
    """A run that was handed to an executor. job: submitit's job; None where there was nothing to do."""

    run_dir: Path
    job: Any | None
    note: str


def dry_run(config: RunConfig, profile: ClusterProfile) -> str:
    """What submitting would do: the resolved configuration and, on Slurm, the sbatch text. Writes nothing."""
    config = absolute(config)
    preflight(config, profile.world_size)
    parts = [f"# {config.run_dir / 'config.toml'}", strict.dump(config)]
    if profile.executor == "slurm":
        parts += ["# sbatch", sbatch_text(profile, config.run_dir / "submitit" / "%j", config.name)]
    else:
        parts += [f"# {profile.tasks_per_node} processes through submitit's local executor"]
    return "\n".join(parts)


def submit(config: RunConfig, profile: ClusterProfile) -> Submitted:
    """Submits one run. A run that is on its way or finished is left alone, and the note says so."""
    config = absolute(config)
    refuse_another(config)
    status = run_status(config.run_dir)
    if status.is_done(config.train.steps) and not (status.early and changes(config)):
        return Submitted(config.run_dir, None, "already finished: nothing to do")
    if status.active:
        return Submitted(config.run_dir, None, f"already {status.state} as job {status.job}: nothing to do")
    _refuse_unknown(status, config.run_dir)
    preflight(config, profile.world_size)
    changed = changes(config)
    run_dir = prepare(config)
    executor = make_executor(profile, run_dir / "submitit" / "%j", config.name)
    time_s = 60.0 * profile.time_min if profile.executor == "local" else None
    job = _handed_over(executor, Job(str(run_dir), tuple(profile.env.items()), profile.max_requeues, time_s))
    _record(run_dir, profile.executor, str(job.job_id))
    note = f"submitted as job {job.job_id}"
    return Submitted(run_dir, job, f"{note}; changed since the start: {', '.join(changed)}" if changed else note)


def _handed_over(executor: Any, job: Job) -> Any:
    """submitit's job; UserError with Slurm's own words if it does not take it."""
    from submitit.core.utils import FailedJobError

    try:
        return executor.submit(job)
    except FailedJobError as error:
        words = str(error).strip().splitlines()
        raise UserError(
            words[-1] if words else "the job was not taken", job.run_dir, "mend the cluster profile"
        ) from None


def claim(config: RunConfig, executor: str, job: str) -> None:
    """Records that a process runs this run by itself. UserError if another job has it, or may have it."""
    status = run_status(config.run_dir)
    if status.active:
        raise UserError(
            f"the run is {status.state} as job {status.job}", str(config.run_dir), "bigchem status shows it"
        )
    _refuse_unknown(status, config.run_dir)
    refuse_another(config)
    _record(config.run_dir, executor, job)


def _record(run_dir: Path, executor: str, job: str) -> None:
    table = {"executor": executor, "job": job, "host": platform.node(), "time": time.time()}
    strict.write_atomically(run_dir / "submission.json", json.dumps(table, indent=1))


def _refuse_unknown(status: RunStatus, run_dir: Path) -> None:
    if status.active is None:
        raise UserError(
            f"cannot tell whether job {status.job} still runs: {status.reason}",
            str(run_dir),
            f"ask again later; if you know that it is gone, remove {run_dir / 'submission.json'}",
        )


def wait(submitted: Submitted, on_change: Callable[[RunStatus], None]) -> RunStatus:
    """Waits until a submitted run is over, telling its status when it changes. UserError if it failed."""
    told = None
    while True:
        status = run_status(submitted.run_dir)
        if (status.state, status.step) != told:
            told = (status.state, status.step)
            on_change(status)
        if status.active is False:  # None: that cannot be known just now
            break
        time.sleep(POLL_S)
    if status.state not in ("finished", "trained"):
        raise UserError(
            f"the run ended as '{status.state}': {status.reason or 'no reason was recorded'}",
            str(submitted.run_dir),
            f"see {submitted.run_dir / 'logs' / 'rank0.log'} and {submitted.run_dir / 'submitit'}",
        )
    return status


def submit_all(configs: Sequence[RunConfig], profile: ClusterProfile, on_change: Callable[[RunStatus], None]) -> None:
    """Submits runs. Local: at most max_concurrent at a time, waiting for all. Slurm: at once, Slurm queues them.

    A run that fails does not keep the others from running; UserError at the end names the failed ones.
    """
    if profile.executor == "slurm":
        for config in configs:
            on_change(run_status(submit(config, profile).run_dir))
        return
    waiting, running, failed = list(configs), list[Submitted](), list[UserError]()
    while waiting or running:
        while waiting and len(running) < profile.max_concurrent:
            running.append(submit(waiting.pop(0), profile))
        try:
            wait(running.pop(0), on_change)
        except UserError as error:
            failed.append(error)
    if failed:
        names = ", ".join(Path(str(error.where)).name for error in failed)
        raise UserError(
            f"{len(failed)} of {len(configs)} runs failed: {names}; the first: {failed[0].what}", failed[0].where
        )
