"""Submitting runs through submitit, and waiting for them."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base import atomic, toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch import elastic_restart
from bigchem.launch.cluster.executors import Submission, host_python, make_executor, submit_call
from bigchem.launch.cluster.fork_server import ForkServers
from bigchem.launch.cluster.profile import ClusterProfile, load_profile, recorded
from bigchem.launch.cluster.snapshot import snapshot
from bigchem.launch.job import Job
from bigchem.launch.runs import owner
from bigchem.launch.runs.prepare import absolute, changed_fields, folders_of, preflight, prepare, refuse_changed_run
from bigchem.launch.runs.status import RunStatus, has_succeeded, pause_s, run_status
from bigchem.launch.slurm.options import OneShot
from bigchem.run import ownership
from bigchem.run.folder import not_a_run


@dataclass(frozen=True)
class Submitted:
    """A run handed to an executor. job: submitit's job; None if there was nothing to do."""

    run_dir: Path
    job: Any | None
    note: str


def submit(
    config: RunConfig, profile: ClusterProfile, options: OneShot | None = None, servers: ForkServers | None = None
) -> Submitted:
    """Submits one run. If it is already active or finished, does nothing, and the note says so.

    If two processes submit the same run at once, one does and the other finds it submitted. options: for this
    submission only. servers: see Submission.
    """
    config = absolute(config)
    if note := why_not_submit(config):
        return Submitted(config.run_dir, None, note)
    for ranks in profile.world_sizes:
        preflight(config, ranks)
    with owner.start_lock(config.run_dir, "submits"):
        if note := why_not_submit(config):
            return Submitted(config.run_dir, None, note)
        changed = changed_fields(config)
        run_dir = prepare(config)
        atomic.write_atomically(run_dir / "cluster.toml", recorded(profile))
        code = snapshot(run_dir / "code")
        folder = run_dir / "submitit" / "%j"
        made = Submission(profile, folder, config.name, code, folders_of(config), options, servers=servers)
        executor = make_executor(made)
        job = submit_call(lambda: executor.submit(job_of(config, profile)), str(run_dir))
        known = {"world_size": profile.world_size, "code": code.name}
        owner.record(run_dir, owner.submitted(profile.executor, str(job.job_id), **known))
        not_watched = elastic_restart.watch(run_dir, profile, str(job.job_id), host_python(code))
    note = f"submitted as job {job.job_id}" + (f"; {not_watched}" if not_watched else "")
    return Submitted(run_dir, job, f"{note}; changed since the start: {', '.join(changed)}" if changed else note)


def job_of(config: RunConfig, profile: ClusterProfile) -> Job:
    """The callable for submitit."""
    env, delay_s = tuple(profile.env.items()), float(profile.signal_delay_s)
    return Job(str(config.run_dir), env, profile.max_requeues, 60.0 * profile.time_min, delay_s, profile.scratch)


def resume(
    run_dir: Path,
    cluster: ClusterProfile | None,
    overrides: Sequence[str] = (),
    options: OneShot | None = None,
) -> Submitted:
    """Submits a run again from its folder. cluster: replaces the profile it was submitted with.

    The folder may have been moved: its path overrides `runs` and `name` in its configuration.
    """
    file = run_dir / "config.toml"
    if not file.is_file():
        raise not_a_run(run_dir, "bigchem submit CONFIG starts a run")
    here = run_dir.resolve()
    config = toml.load(RunConfig, file, [*overrides, f"runs={json.dumps(str(here.parent))}", f"name={here.name}"])
    profile_file = run_dir / "cluster.toml"
    if cluster is None and not profile_file.is_file():
        current = ownership.read(run_dir)
        if current is not None and current.on_slurm:
            hint = "`sbatch` that script again, or pass --cluster PROFILE to have bigchem submit it"
            raise UserError(f"{current} was your own batch script, which bigchem does not have", str(run_dir), hint)
        raise UserError("it was not submitted, so it has no cluster profile", str(run_dir), "pass --cluster PROFILE")
    return submit(config, cluster or load_profile(str(profile_file)), options)


def why_not_submit(config: RunConfig, status: RunStatus | None = None) -> str | None:
    """Why not to submit a run; None if it should be submitted. UserError if that is unknown or forbidden."""
    refuse_changed_run(config)
    status = status or run_status(config.run_dir)
    if status.is_done(config.train.steps) and not (status.early and changed_fields(config)):
        return "already finished: nothing to do"
    if status.active:
        return f"already {status.state} as job {status.job}: nothing to do"
    if status.active is None:
        owner.refuse_if_alive(config.run_dir)
    return None


def wait(submitted: Submitted, on_change: Callable[[RunStatus], None]) -> RunStatus:
    """Waits until a submitted run is over, reporting changes of its status. UserError if it failed."""
    return checked(submitted, wait_for_any([submitted], on_change, {})[1])


def wait_for_any(
    running: Sequence[Submitted], on_change: Callable[[RunStatus], None], reported: dict[Path, tuple[str, int]]
) -> tuple[Submitted, RunStatus]:
    """Waits until one of the runs is over, and reports the changes of all. reported: by run, what was reported last."""
    while True:
        for submitted in running:
            status = run_status(submitted.run_dir)
            if reported.get(submitted.run_dir) != (status.state, status.step):
                reported[submitted.run_dir] = (status.state, status.step)
                on_change(status)
            if status.active is False:  # None: unknown for now
                return submitted, status
        time.sleep(max(pause_s(submitted.run_dir) for submitted in running))


def checked(submitted: Submitted, status: RunStatus) -> RunStatus:
    """The status of a run that is over. UserError if it failed, or was trained but not evaluated as it should be."""
    run_dir = submitted.run_dir
    if has_succeeded(run_dir, status):
        return status
    logs = f"see {run_dir / 'logs' / 'rank0.log'} and {run_dir / 'submitit'}"
    reason = (status.reason or "no reason was recorded").removeprefix("not evaluated: ")
    if status.state == "trained":
        hint = f"{logs}; then `bigchem evaluate {run_dir}`"
        raise UserError(f"the run was trained, but not evaluated: {reason}", str(run_dir), hint)
    raise UserError(f"the run ended as '{status.state}': {reason}", str(run_dir), logs)
