"""Cancels runs: they save and stop, as after Ctrl-C in a terminal, or end at once."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bigchem.base.errors import UserError, as_user_error
from bigchem.launch import elastic_restart
from bigchem.launch.runs.owner import Liveness, mark_cancelled, owners, start_lock, unmark_cancelled
from bigchem.launch.runs.status import statuses
from bigchem.launch.slurm import client
from bigchem.run import lifecycle, ownership
from bigchem.run.folder import not_a_run
from bigchem.run.ownership import Owner, Process
from bigchem.run.state import read_state

TIMEOUT_S = 20.0


def cancel(run_dir: Path, *, now: bool = False) -> str:
    """Tells a run to save and stop, without waiting for it; returns a note of what was done.

    now: end its job at once; unsaved work is lost. UserError if the job cannot be reached.
    """
    if not (run_dir / "config.toml").is_file():
        raise not_a_run(run_dir, "bigchem status lists runs")
    with start_lock(run_dir, "cancels"):
        ((owner, found),) = owners([run_dir])
        state = read_state(run_dir)
        active = lifecycle.is_active(state, found.job)
        if active is None:
            raise UserError(f"cannot reach {owner}: {found.why}", str(run_dir), "try again later")
        if not active or owner is None:
            return f"{lifecycle.shown(state, found.job)}: nothing to cancel"
        mark_cancelled(run_dir, owner)  # first: what ends now must not be restarted
        try:
            saves = _end_here(run_dir, owner, now) if _is_ours(owner) else _end_on_slurm(owner, found, now)
        except BaseException:
            unmark_cancelled(run_dir)
            raise
    if not saves:  # else its batch script does
        elastic_restart.stop(run_dir)
    job = f"job {found.id or owner.job}"
    return f"{job} was told to save and stop" if saves else f"{job} was terminated"


def cancel_all(run_dirs: Sequence[Path], say: Callable[[str], object], *, now: bool = False) -> None:
    """Cancels those of the runs that are active; reports a line for each of them, and one for the rest.

    UserError at the end if any could not be cancelled; the others are cancelled anyway.
    """
    rows = statuses(run_dirs)
    left = Counter(row.state for row in rows if row.active is False)
    failed = _failed([run for run, row in zip(run_dirs, rows, strict=True) if row.active is not False], say, now=now)
    if left:
        counts = ", ".join(f"{count} {state}" for state, count in left.most_common())
        say(f"nothing to cancel: {counts}")
    _raise(failed, len(rows))


def cancel_each(run_dirs: Sequence[Path], say: Callable[[str], object], *, now: bool = False) -> None:
    """Cancels the runs, and reports a line for each. UserError at the end as for `cancel_all`."""
    if len(run_dirs) == 1:
        say(f"{run_dirs[0]}: {cancel(run_dirs[0], now=now)}")
    else:
        _raise(_failed(run_dirs, say, now=now), len(run_dirs))


def _failed(run_dirs: Sequence[Path], say: Callable[[str], object], *, now: bool) -> list[UserError]:
    """Cancels the runs, and reports a line for each; returns the errors of those that could not be cancelled."""
    errors = list[UserError]()
    for run_dir in run_dirs:
        try:
            say(f"{run_dir}: {cancel(run_dir, now=now)}")
        except (UserError, OSError) as error:  # OSError: a folder of another user
            errors.append(as_user_error(error))
            say(f"{run_dir}: not cancelled: {errors[-1].what}")
    return errors


def _raise(errors: Sequence[UserError], of: int) -> None:
    if errors:
        what = f"{len(errors)} of {of} runs were not cancelled: {errors[0].what}"
        raise UserError(what, errors[0].where, errors[0].hint)


def _is_ours(owner: Owner) -> bool:
    """Whether to signal its process rather than a job. That includes a process that a user started in the shell of an
    allocation, which Slurm does not count as the job's."""
    if not owner.on_slurm:
        return True
    shell = owner.executor == "here" and not owner.launch
    return shell and owner.process is not None and _is_visible(owner.process)


def _end_on_slurm(owner: Owner, found: Liveness, now: bool) -> bool:
    """Ends a Slurm job; returns whether it will save first. A pending job has nothing to save."""
    job = found.id or owner.job
    # To all ranks, see health/signals.py. Without a step, as under torchrun in a batch script, they are its children.
    whole = [] if owner.executor == "slurm" or owner.launch else ["--full"]
    if not now and not found.waits and _scancel("--signal=INT", *whole, job) is None:
        return True
    trouble = _scancel(job)
    if trouble is not None:
        raise UserError(trouble, f"job {job}", "see `squeue --me`")
    return False


def _scancel(*arguments: str) -> str | None:
    """Slurm's error message; None if it succeeded."""
    return client.ask("scancel", *arguments, timeout_s=TIMEOUT_S).trouble


def _end_here(run_dir: Path, owner: Owner, now: bool) -> bool:
    """The same for processes of this machine. Only those that are provably the run's are signalled."""
    process = owner.process
    if process is None or not _is_visible(process):
        host = "another container" if process is None else f"a container of {process.host}"
        raise UserError(f"its process {owner.job} is in {host}", str(run_dir), "run the command there")
    if now:
        # The parent first: it would start its children again.
        for each in [process, *map(Process.of, _descendants(process.pid))]:
            send(each, signal.SIGKILL)
        return False
    ranks = [*map(Process.of, _children(process.pid))] if owner.executor == "local" else [process]
    for each in ranks:  # one rank tells the others
        send(each, signal.SIGINT)
    return True


def send(process: Process, number: signal.Signals) -> bool:
    """Signals exactly this process, never another one that reuses its pid; returns whether it existed."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:  # a kernel before 5.3
        handle = None
    try:
        if not process.started or ownership.started(process.pid) != process.started:
            return False
        with suppress(ProcessLookupError):
            if handle is None:
                os.kill(process.pid, number)
            else:  # the handle stays with the process whose start time was just compared
                signal.pidfd_send_signal(handle, number)
        return True
    finally:
        if handle is not None:
            os.close(handle)


def _is_visible(process: Process) -> bool:
    return (process.boot, process.namespace) == (ownership.boot_id(), ownership.pid_namespace()) and process.boot != ""


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    return [found for child in _children(pid) for found in (child, *_descendants(child))]
