"""Who may start a run: one owner at a time, told apart across processes, containers, jobs and clusters.

Every starter (submit, resume, train, a rank 0 that Slurm has requeued) takes the run's lock, asks whether the recorded
owner lives, and replaces the record with its own. `status` and `cancel` read the same record.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError
from bigchem.base.file_lock import exclusive
from bigchem.base.json_file import RecordError
from bigchem.base.printable import printable
from bigchem.launch.slurm import client, squeue
from bigchem.run import lifecycle, ownership
from bigchem.run.ownership import Claim, Owner, Process
from bigchem.run.state import read_state

LOCK = "owner.lock"
CANCEL = "cancel.json"
SETTLE_S = 1.0
"""On a file system without locks: how long a starter waits before it looks whether another one wrote after it."""


@dataclass(frozen=True)
class Liveness:
    """What is known of a run's owner.

    lives: queued or running; None where that cannot be known, and why says why not. why: else, why it waits or how it
    ended, in Slurm's words. nodes: Slurm's list, or a host. id: on Slurm, which of the run's jobs. starts: when Slurm
    has started it, or expects to, in seconds since 1970.
    """

    lives: bool | None = False
    waits: bool = False
    why: str | None = None
    nodes: str | None = None
    restarts: int | None = None
    id: str | None = None
    owned: bool = True
    starts: float | None = None

    @property
    def job(self) -> lifecycle.Job:
        """The same as a word of the state table."""
        if not self.owned:
            return lifecycle.Job.NONE
        if self.lives is None:
            return lifecycle.Job.UNKNOWN
        if not self.lives:
            return lifecycle.Job.GONE
        return lifecycle.Job.WAITS if self.waits else lifecycle.Job.RUNS


@contextmanager
def start_lock(run_dir: Path, purpose: str, *, timeout_s: float = 60.0, make: bool = True) -> Iterator[bool]:
    """While entered, no other process starts or cancels this run; waits for one that does. Yields False where the file
    system has no locks. make: the run folder, if it is not there; else that is a UserError."""
    if make:
        run_dir.mkdir(parents=True, exist_ok=True)
    elif not run_dir.is_dir():
        raise UserError("the run folder was removed", str(run_dir), "bigchem submit CONFIG starts the run anew")
    with exclusive(run_dir / LOCK, f"{purpose} {run_dir}", timeout_s=timeout_s) as held:
        yield held


def liveness(run_dir: Path, owner: Owner | None, queue: squeue.Queue, cluster: str | None) -> Liveness:
    """Whether an owner lives. queue: of the jobs that `jobs_of` names. cluster: that this process speaks to."""
    if owner is None:
        return Liveness(owned=False)
    if owner.on_slurm:
        return _job_alive(run_dir, owner, queue, cluster)
    if owner.process is None:
        return Liveness(None, why="its record names no process")
    lives, why = (False, None) if owner.released is not None else process_liveness(run_dir, owner.process)
    return Liveness(lives, why=why, nodes=owner.process.host)


def process_liveness(run_dir: Path, process: Process) -> tuple[bool | None, str | None]:
    """Whether the very process that started the run lives; None where this machine cannot know, and why not.

    In another container of this machine the pid says nothing, but the lock does that rank 0 holds. On another machine a
    held lock proves life; a free one proves nothing, as not every network file system shares its locks.
    """
    here, locked = Process.here(), ownership.liveness_is_locked(run_dir)
    if process.boot and (process.boot, process.namespace) == (here.boot, here.namespace):
        # Other users' processes may be hidden.
        return ownership.started(process.pid) == process.started or bool(locked), None
    if locked:
        return True, None
    if locked is False and process.boot and process.boot == here.boot:
        return False, "its container is gone"
    if locked is False and process.host == here.host:
        return False, "the machine was restarted" if process.boot else None
    return None, f"it was started on {process.host}: ask there"


def jobs_of(owner: Owner | None) -> list[str]:
    """Slurm's ids of a run's jobs: the one that trains it and, where there is one, the one that then evaluates it."""
    if owner is None or not owner.on_slurm:
        return []
    return [owner.job, *([owner.evaluation] if owner.evaluation else [])]


def owners(run_dirs: Sequence[Path]) -> list[tuple[Owner | None, Liveness]]:
    """Each run's owner, and whether it lives. Slurm is asked once for all. UserError if a record cannot be read."""
    found = []
    for one in owners_or_errors(run_dirs):
        if isinstance(one, Exception):
            raise one
        found.append(one)
    return found


def owners_or_errors(run_dirs: Sequence[Path]) -> list[tuple[Owner | None, Liveness] | UserError | OSError]:
    """The same; where a run's record cannot be read, the error, so that the others are still told."""
    owners = [_owner_or_error(run_dir) for run_dir in run_dirs]
    known = [owner for owner in owners if isinstance(owner, Owner)]
    queue = squeue.ask([job for owner in known for job in jobs_of(owner)])
    cluster = client.cluster_name() if any(owner.cluster for owner in known) else None
    return [
        owner if isinstance(owner, Exception) else (owner, liveness(run_dir, owner, queue, cluster))
        for run_dir, owner in zip(run_dirs, owners, strict=True)
    ]


def _owner_or_error(run_dir: Path) -> Owner | UserError | OSError | None:
    try:
        return ownership.read(run_dir)
    except (UserError, OSError) as error:
        return error


def claim(run_dir: Path, me: Owner, *, held: bool) -> Claim:
    """Makes `me` the run's owner. The caller is inside `alone`, which has yielded held.

    UserError if another owner lives, or may live. A restart of the owner's own job takes over what its record knows.
    """
    before = ownership.read(run_dir)
    if before is not None and is_restart(run_dir, before, me):
        known = {name: getattr(before, name) for name in ("executor", "evaluation", "code", "output")}
        me = replace(me, **known)
    else:
        refuse_if_alive(run_dir)
    ownership.write(run_dir, me)
    ownership.lock_liveness(run_dir)
    made = Claim(run_dir, me.token)
    if not held:
        time.sleep(SETTLE_S)
        made.check()
    return made


def is_restart(run_dir: Path, before: Owner, me: Owner) -> bool:
    """Whether `me` is a later start of the job that owns the run, so that the earlier start is over: Slurm and torchrun
    run a job once at a time. Within one start of a job, a second process has to wait for the end of the first."""
    if me.executor == "local":
        return before.process == me.process
    if me.on_slurm:
        same = before.on_slurm and before.job == me.job and before.cluster in (None, me.cluster)
    else:
        same = me.launch != "" and before.launch == me.launch
    if not same or before.process is None or (me.on_slurm and me.restart > before.restart):
        return same
    lives, _ = process_liveness(run_dir, before.process)
    if lives is not None or me.launch == before.launch:
        return lives is False or (lives is None and me.round > before.round)
    return bool(before.launch) and client.step_lives(before.launch) is False  # on another node of the job


def record(run_dir: Path, owner: Owner) -> None:
    """Records a job that was just submitted; the caller is inside `alone`. A job that has begun meanwhile, where the
    file system has no locks, keeps its token."""
    before = ownership.read(run_dir)
    if before is not None and (before.job, before.cluster) == (owner.job, owner.cluster) and before.process is not None:
        owner = replace(owner, token=before.token, process=before.process, restart=before.restart, launch=before.launch)
    ownership.write(run_dir, owner)


def refuse_if_alive(run_dir: Path) -> None:
    """UserError if the run's owner lives, or may live."""
    ((owner, found),) = owners([run_dir])
    state = read_state(run_dir)
    active = lifecycle.is_active(state, found.job)
    if active:
        shown = lifecycle.shown(state, found.job)
        raise UserError(f"the run is {shown} as {owner}", str(run_dir), "bigchem status shows it")
    if active is None:
        refuse_unknown(run_dir, owner, found)


def refuse_unknown(run_dir: Path, owner: Owner | None, found: Liveness) -> None:
    """Raises the UserError for an owner of whom nothing can be known."""
    raise UserError(
        f"cannot tell whether {owner} still runs: {found.why}",
        str(run_dir),
        f"ask again later; if you know that it is gone, remove {_record(run_dir)}",
    )


def _record(run_dir: Path) -> Path:
    file = run_dir / ownership.FILE
    return file if file.exists() else run_dir / ownership.OLDER


def submitted(executor: str, job: str, **more: Any) -> Owner:
    """The record of a job that was just submitted from this process. more: world_size, code, output, evaluation."""
    on_slurm = executor == "slurm"
    process = None if on_slurm else Process.of(int(job))
    cluster = client.cluster_name() if on_slurm else None
    return _owner(executor, job, cluster=cluster, process=process, **more)


def of_this_process(env: Mapping[str, str], world_size: int) -> Owner:
    """The record of rank 0, wherever it was started."""
    process, controller = Process.here(), env.get("SUBMITIT_LOCAL_JOB_ID")
    again = int(env.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if env.get("SUBMITIT_EXECUTOR") == "local" and controller:
        return _owner("local", controller, process=Process.of(int(controller)), world_size=world_size)
    if "SLURM_JOB_ID" in env:
        step = f"{job_id(env)}.{env['SLURM_STEP_ID']}" if "SLURM_STEP_ID" in env else ""
        restart, cluster = int(env.get("SLURM_RESTART_COUNT", "0")), client.cluster_name(env)
        return _owner(
            *("here", job_id(env)),
            cluster=cluster,
            restart=restart,
            launch=step,
            process=process,
            world_size=world_size,
            round=again,
        )
    launch = env.get("TORCHELASTIC_RUN_ID", "none")
    launch = "" if launch == "none" else f"torchrun {launch}"
    return _owner("here", str(process.pid), round=again, launch=launch, process=process, world_size=world_size)


def job_id(env: Mapping[str, str]) -> str:
    """A job's id, or that of a task of an array: by SLURM_JOB_ID alone all of the array would be meant, for one of its
    tasks."""
    array = env.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{env['SLURM_ARRAY_TASK_ID']}" if array else env["SLURM_JOB_ID"]


def of_job(run_dir: Path, env: Mapping[str, str]) -> Claim:
    """The claim of this process's job, for what it has to say before rank 0 has made one, or where rank 0 is not to be
    heard. It never holds where the run is another job's."""
    try:
        has_run = ownership.read(run_dir)
    except UserError:
        has_run = None
    if has_run is None or "SLURM_JOB_ID" not in env:
        return Claim(run_dir)
    return Claim(run_dir, has_run.token if is_jobs(has_run, env) else "another job's")


def is_jobs(has_run: Owner, env: Mapping[str, str]) -> bool:
    """Whether the run belongs to the Slurm job whose environment this is."""
    cluster = env.get("SLURM_CLUSTER_NAME")
    return job_id(env) in jobs_of(has_run) and (cluster is None or has_run.cluster in (None, cluster))


def await_submitter(run_dir: Path, env: Mapping[str, str], timeout_s: float) -> None:
    """Waits until the process that submits this Slurm job has recorded it: a sweep's may be busy with other runs, and
    the ranks' time to meet must not run meanwhile."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and run_dir.is_dir():
        with suppress(UserError):
            has_run = ownership.read(run_dir)
            if has_run is not None and is_jobs(has_run, env):
                return
        time.sleep(0.5)


def release(held: Claim) -> None:
    """The attempt has ended and is not started again: the run is free, though its job or process may still go on."""
    ownership.unlock_liveness(held.run_dir)
    with suppress(OSError, UserError):
        owner = ownership.read(held.run_dir)
        if owner is not None and owner.token == held.token:
            ownership.write(held.run_dir, replace(owner, released=time.time()))


def mark_cancelled(run_dir: Path, owner: Owner) -> None:
    """Records that a person cancelled what this owner does: it is not started again."""
    table = {"job": owner.job, "cluster": owner.cluster, "by": getpass.getuser(), "time": time.time()}
    atomic.write_atomically(run_dir / CANCEL, json.dumps(table, indent=1))


def unmark_cancelled(run_dir: Path) -> None:
    """Takes the mark back: the job could not be reached."""
    (run_dir / CANCEL).unlink(missing_ok=True)


def cancelled_by(run_dir: Path, owner: Owner | None) -> str | None:
    """Who cancelled the job that has the run; None if nobody has, or an earlier job was meant."""
    try:
        table = json_file.load_object(run_dir / CANCEL)
    except (OSError, RecordError):
        return None
    if owner is None or (table.get("job"), table.get("cluster")) != (owner.job, owner.cluster):
        return None
    return printable(table.get("by")) if (json_file.number(table.get("time")) or 0.0) >= owner.time else None


def _owner(executor: str, job: str, **more: Any) -> Owner:
    return Owner(secrets.token_hex(8), executor, job, getpass.getuser(), time.time(), **more)


def _job_alive(run_dir: Path, owner: Owner, queue: squeue.Queue, cluster: str | None) -> Liveness:
    elsewhere = None not in (cluster, owner.cluster) and cluster != owner.cluster
    if owner.released is not None and owner.evaluation is None and (owner.executor == "here" or elsewhere):
        return Liveness(id=owner.job)  # the job itself may go on for a while
    if elsewhere:
        return Liveness(None, why=f"this machine speaks to cluster {cluster}: ask on {owner.cluster}", id=owner.job)
    if queue.trouble:
        return Liveness(None, why=queue.trouble, id=owner.job)
    found = [_on_slurm(job, queue.jobs[job]) for job in jobs_of(owner) if job in queue.jobs]
    if not found and owner.released is None and owner.user not in (getpass.getuser(), "?") and os.geteuid():
        return Liveness(None, why=f"Slurm may hide the jobs of others: ask {owner.user}", id=owner.job)
    job = next((one for one in found if one.lives), found[0] if found else Liveness(id=owner.job))
    persons = owner.executor == "here" and owner.process is not None and (job.restarts or 0) <= owner.restart
    return _with_process(run_dir, owner, job) if persons and not job.waits else job


def _with_process(run_dir: Path, owner: Owner, job: Liveness) -> Liveness:
    """What the process that a person started in a job says beside the job: neither ends with the other."""
    if owner.process is None:
        return job
    lives, _ = process_liveness(run_dir, owner.process)
    if lives and not job.lives:
        return replace(job, lives=True, why="its job is gone, its process is not", nodes=owner.process.host)
    if lives is False and job.lives:
        return replace(job, lives=False, why="its process is gone, though its job is not")
    return job


def _on_slurm(name: str, job: squeue.Job) -> Liveness:
    why = job.reason if job.waits else None
    if job.gone:
        why = " ".join(word for word in (job.state, f"({job.reason})" if job.reason else "") if word)
    return Liveness(not job.gone, job.waits, why, job.nodes, job.restarts, name, starts=job.starts)
