"""Who may start a run: one owner at a time, across processes, containers, jobs and clusters.

Every starter (submit, resume, train, a requeued rank 0) takes the run's lock, checks whether the recorded owner is
alive, and replaces the record with its own. `status` and `cancel` read the same record.
"""

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
"""On a file system without locks: how long a starter waits before it checks whether another one wrote after it."""


@dataclass(frozen=True)
class Liveness:
    """What is known about a run's owner.

    lives: queued or running; None if unknown, and why says the reason. why: otherwise, why it waits or how it ended, in
    Slurm's words. nodes: Slurm's list, or a host. id: on Slurm, which of the run's jobs. starts: when Slurm started it,
    or expects to, in seconds since 1970.
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
        """The same as a value of the state table."""
        if not self.owned:
            return lifecycle.Job.NONE
        if self.lives is None:
            return lifecycle.Job.UNKNOWN
        if not self.lives:
            return lifecycle.Job.GONE
        return lifecycle.Job.WAITS if self.waits else lifecycle.Job.RUNS


@contextmanager
def start_lock(run_dir: Path, purpose: str, *, timeout_s: float = 60.0, make: bool = True) -> Iterator[bool]:
    """Locks the run against other processes that start or cancel it, and waits for one that does. Yields False if the
    file system has no locks. make: create the run folder if it is missing; else a missing one is a UserError."""
    if make:
        run_dir.mkdir(parents=True, exist_ok=True)
    elif not run_dir.is_dir():
        raise UserError("the run folder was removed", str(run_dir), "bigchem submit CONFIG starts the run again")
    with exclusive(run_dir / LOCK, f"{purpose} {run_dir}", timeout_s=timeout_s) as locked:
        yield locked


def liveness(run_dir: Path, owner: Owner | None, queue: squeue.Queue, cluster: str | None) -> Liveness:
    """Whether an owner is alive. queue: of the jobs in `jobs_of`. cluster: the one this process talks to."""
    if owner is None:
        return Liveness(owned=False)
    if owner.on_slurm:
        return _job_alive(run_dir, owner, queue, cluster)
    if owner.process is None:
        return Liveness(None, why="its record names no process")
    lives, why = (False, None) if owner.released is not None else process_liveness(run_dir, owner.process)
    return Liveness(lives, why=why, nodes=owner.process.host)


def process_liveness(run_dir: Path, process: Process) -> tuple[bool | None, str | None]:
    """Whether exactly the process that started the run is alive; None if this machine cannot know, and why.

    In another container of this machine the pid says nothing, but rank 0's lock does. On another machine, if the lock
    is taken the process is alive; if it is free, that proves nothing: not every network file system shares its locks.
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
    """Slurm's ids of a run's jobs: the one that trains it and, if separate, the one that evaluates it."""
    if owner is None or not owner.on_slurm:
        return []
    return list(dict.fromkeys([owner.job, owner.evaluation or owner.job]))


def owners(run_dirs: Sequence[Path]) -> list[tuple[Owner | None, Liveness]]:
    """Each run's owner, and whether it is alive, by one call of Slurm. UserError if a record cannot be read."""
    found = []
    for result in owners_or_errors(run_dirs):
        if isinstance(result, Exception):
            raise result
        found.append(result)
    return found


def owners_or_errors(run_dirs: Sequence[Path]) -> list[tuple[Owner | None, Liveness] | UserError | OSError]:
    """The same, with the error in place of a run whose record cannot be read."""
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


def claim(run_dir: Path, me: Owner, *, locked: bool) -> Claim:
    """Makes `me` the run's owner. The caller holds `start_lock`, which yielded `locked`.

    UserError if another owner is, or may be, alive. A restart of the owner's own job inherits its record's fields.
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
    if not locked:
        time.sleep(SETTLE_S)
        made.check()
    return made


def is_restart(run_dir: Path, before: Owner, me: Owner) -> bool:
    """Whether `me` is a later start of the job that owns the run. Then the earlier start is over: Slurm and torchrun
    run a job once at a time. Within one start of a job, a second process has to wait until the first has ended."""
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
    """Records a job that was just submitted; the caller holds `start_lock`. If the file system has no locks, a job that
    has already begun keeps its token."""
    before = ownership.read(run_dir)
    if before is not None and (before.job, before.cluster) == (owner.job, owner.cluster) and before.process is not None:
        owner = replace(owner, token=before.token, process=before.process, restart=before.restart, launch=before.launch)
    ownership.write(run_dir, owner)


def refuse_if_alive(run_dir: Path) -> None:
    """UserError if the run's owner is, or may be, alive."""
    ((owner, found),) = owners([run_dir])
    state = read_state(run_dir)
    active = lifecycle.is_active(state, found.job)
    if active:
        shown = lifecycle.shown(state, found.job)
        raise UserError(f"the run is {shown} as {owner}", str(run_dir), "bigchem status shows it")
    if active is None:
        refuse_unknown(run_dir, owner, found)


def refuse_unknown(run_dir: Path, owner: Owner | None, found: Liveness) -> None:
    """Raises the UserError for an owner whose state is unknown."""
    raise UserError(
        f"cannot tell whether {owner} still runs: {found.why}",
        str(run_dir),
        f"try again later; if you know that it is gone, remove {_record(run_dir)}",
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
    """A job's id; for an array's task, that of the task: for one of its tasks, SLURM_JOB_ID names the whole array."""
    array = env.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{env['SLURM_ARRAY_TASK_ID']}" if array else env["SLURM_JOB_ID"]


def of_job(run_dir: Path, env: Mapping[str, str]) -> Claim:
    """A claim for this process's job, for reports before rank 0 has claimed the run or without it. It does not hold if
    the run belongs to another job."""
    try:
        current = ownership.read(run_dir)
    except UserError:
        current = None
    if current is None or "SLURM_JOB_ID" not in env:
        return Claim(run_dir)
    return Claim(run_dir, current.token if is_jobs(current, env) else "another job's")


def is_jobs(current: Owner, env: Mapping[str, str]) -> bool:
    """Whether the run belongs to the Slurm job whose environment this is."""
    cluster = env.get("SLURM_CLUSTER_NAME")
    return job_id(env) in jobs_of(current) and (cluster is None or current.cluster in (None, cluster))


def await_submitter(run_dir: Path, env: Mapping[str, str], timeout_s: float) -> None:
    """Waits until the submitting process has recorded this Slurm job: a sweep's may be busy with other runs, which must
    not use up the ranks' time to meet."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and run_dir.is_dir():
        with suppress(UserError):
            current = ownership.read(run_dir)
            if current is not None and is_jobs(current, env):
                return
        time.sleep(0.5)


def release(claim: Claim) -> None:
    """Frees the run after an attempt that is not restarted, though its job or process may still continue."""
    ownership.unlock_liveness(claim.run_dir)
    with suppress(OSError, UserError):
        owner = ownership.read(claim.run_dir)
        if owner is not None and owner.token == claim.token:
            ownership.write(claim.run_dir, replace(owner, released=time.time()))


def mark_cancelled(run_dir: Path, owner: Owner) -> None:
    """Records that the user cancelled this owner's job: it is not restarted."""
    table = {"job": owner.job, "cluster": owner.cluster, "by": getpass.getuser(), "time": time.time()}
    atomic.write_atomically(run_dir / CANCEL, json.dumps(table, indent=1))


def unmark_cancelled(run_dir: Path) -> None:
    """Removes the mark because the job could not be reached."""
    (run_dir / CANCEL).unlink(missing_ok=True)


def cancelled_by(run_dir: Path, owner: Owner | None) -> str | None:
    """Who cancelled the job that owns the run; None if nobody did, or an earlier job was cancelled."""
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
        return Liveness(id=owner.job)  # the job itself may continue for a while
    if elsewhere:
        return Liveness(None, why=f"this machine talks to cluster {cluster}: ask on {owner.cluster}", id=owner.job)
    if queue.trouble:
        return Liveness(None, why=queue.trouble, id=owner.job)
    found = [_on_slurm(job, queue.jobs[job]) for job in jobs_of(owner) if job in queue.jobs]
    if not found and owner.released is None and owner.user not in (getpass.getuser(), "?") and os.geteuid():
        return Liveness(None, why=f"Slurm may hide other users' jobs: ask {owner.user}", id=owner.job)
    job = next((alive for alive in found if alive.lives), found[0] if found else Liveness(id=owner.job))
    by_user = owner.executor == "here" and owner.process is not None and (job.restarts or 0) <= owner.restart
    return _with_process(run_dir, owner, job) if by_user and not job.waits else job


def _with_process(run_dir: Path, owner: Owner, job: Liveness) -> Liveness:
    """Combines the liveness of a job and of the process that a user started in it: neither ends with the other."""
    if owner.process is None:
        return job
    lives, _ = process_liveness(run_dir, owner.process)
    if lives and not job.lives:
        return replace(job, lives=True, why="its job is gone, but its process is not", nodes=owner.process.host)
    if lives is False and job.lives:
        return replace(job, lives=False, why="its process is gone, but its job is not")
    return job


def _on_slurm(name: str, job: squeue.Job) -> Liveness:
    why = job.reason if job.waits else None
    if job.gone:
        why = " ".join(word for word in (job.state, f"({job.reason})" if job.reason else "") if word)
    return Liveness(not job.gone, job.waits, why, job.nodes, job.restarts, name, starts=job.starts)
