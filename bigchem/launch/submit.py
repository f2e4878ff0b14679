"""Submitting runs through submitit, and waiting for them."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bigchem import strict
from bigchem.config import RunConfig
from bigchem.data.locks import lock
from bigchem.errors import UserError
from bigchem.launch.cluster import ClusterProfile
from bigchem.launch.executors import SBATCH_TIMEOUT_S, make_executor
from bigchem.launch.job import Job
from bigchem.launch.runfolder import absolute, changes, folders_of, preflight, prepare, refuse_another
from bigchem.launch.snapshot import snapshot
from bigchem.launch.status import RunStatus, pause_s, read_submission, run_status

T = TypeVar("T")


@dataclass(frozen=True)
class Submitted:
    """A run that was handed to an executor. job: submitit's job; None where there was nothing to do."""

    run_dir: Path
    job: Any | None
    note: str


def submit(config: RunConfig, profile: ClusterProfile) -> Submitted:
    """Submits one run. A run that is on its way or finished is left alone, and the note says so.

    Of two that submit the same run at once, one does and the other finds it submitted.
    """
    config = absolute(config)
    if note := nothing_to_do(config):
        return Submitted(config.run_dir, None, note)
    preflight(config, profile.world_size)
    with alone(config.run_dir):
        if note := nothing_to_do(config):
            return Submitted(config.run_dir, None, note)
        changed = changes(config)
        run_dir = prepare(config)
        strict.write_atomically(run_dir / "cluster.toml", strict.dump(profile))
        code = snapshot(run_dir / "code")
        folder = run_dir / "submitit" / "%j"
        executor = make_executor(profile, folder, config.name, code, folders_of(config))
        job = handed_over(lambda: executor.submit(job_of(config, profile)), str(run_dir))
        record(run_dir, profile.executor, str(job.job_id), world_size=profile.world_size, code=code.name)
    note = f"submitted as job {job.job_id}"
    return Submitted(run_dir, job, f"{note}; changed since the start: {', '.join(changed)}" if changed else note)


def job_of(config: RunConfig, profile: ClusterProfile) -> Job:
    """What submitit is to run."""
    time_s = 60.0 * profile.time_min if profile.executor == "local" else None
    env = tuple(profile.env.items())
    return Job(str(config.run_dir), env, profile.max_requeues, time_s, profile.scratch)


def resume(run_dir: Path, cluster: ClusterProfile | None, overrides: Sequence[str] = ()) -> Submitted:
    """Submits a run again, as its folder says. cluster: another profile than the one it was submitted with.

    The folder may have been moved: it is the run's, whatever its configuration says.
    """
    file = run_dir / "config.toml"
    if not file.is_file():
        raise UserError("no run folder: it has no config.toml", str(run_dir), "bigchem submit CONFIG starts a run")
    here = run_dir.resolve()
    config = strict.load(RunConfig, file, [*overrides, f"runs={json.dumps(str(here.parent))}", f"name={here.name}"])
    kept = run_dir / "cluster.toml"
    if cluster is None and not kept.is_file():
        raise UserError("it was not submitted, so it has no cluster profile", str(run_dir), "say --cluster PROFILE")
    return submit(config, cluster or strict.load(ClusterProfile, kept))


@contextmanager
def alone(run_dir: Path) -> Iterator[None]:
    """While entered, no other process submits or cancels this run; waits for one that does. Where the file system has
    no locks there is none: what is left is a second between looking and submitting."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "submit.lock").open("wb") as handle:
        with suppress(UserError):
            lock(handle)
        yield


def nothing_to_do(config: RunConfig, status: RunStatus | None = None) -> str | None:
    """Why a run is not to be submitted, in words; None if it is. UserError if that cannot be known, or must not be."""
    refuse_another(config)
    status = status or run_status(config.run_dir)
    if status.is_done(config.train.steps) and not (status.early and changes(config)):
        return "already finished: nothing to do"
    if status.active:
        return f"already {status.state} as job {status.job}: nothing to do"
    _refuse_unknown(status, config.run_dir)
    return None


def handed_over(submission: Callable[[], T], where: str) -> T:
    """What a call of submitit's returns; UserError with Slurm's own words if it does not take the job."""
    from submitit.core.utils import FailedJobError

    try:
        return submission()
    except FailedJobError as error:
        words = str(error).strip().splitlines()
        if not words:  # `timeout` ends it without one
            hint = "ask again later; `squeue --me` shows whether the job was taken all the same"
            raise UserError(f"sbatch has not answered for {SBATCH_TIMEOUT_S} s", where, hint) from None
        raise UserError(words[-1], where, "mend the cluster profile") from None


def claim(config: RunConfig, executor: str, job: str, slurm_job: str | None = None) -> None:
    """Records that a process runs this run by itself. UserError if another job has it, or may have it.

    slurm_job: the Slurm job that it is part of. What an earlier attempt of this very job has left on another node is
    gone, for Slurm runs a job once at a time: whoever wrote a batch script of their own may have it requeued.
    """
    status = run_status(config.run_dir)
    if status.active:
        raise UserError(
            f"the run is {status.state} as job {status.job}", str(config.run_dir), "bigchem status shows it"
        )
    if slurm_job is None or read_submission(config.run_dir).get("slurm_job") != slurm_job:
        _refuse_unknown(status, config.run_dir)
    refuse_another(config)
    record(config.run_dir, executor, job, slurm_job=slurm_job)


def record(run_dir: Path, executor: str, job: str, **more: object) -> None:
    """Says in the run folder which job has the run. more: what else is to be known of it."""
    table = {"executor": executor, "job": job, "host": platform.node(), "time": time.time(), **more}
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
        time.sleep(pause_s(submitted.run_dir))
    if status.state not in ("finished", "trained"):
        raise UserError(
            f"the run ended as '{status.state}': {status.reason or 'no reason was recorded'}",
            str(submitted.run_dir),
            f"see {submitted.run_dir / 'logs' / 'rank0.log'} and {submitted.run_dir / 'submitit'}",
        )
    return status
