"""Stopping runs: saved and stopped, as by Ctrl-C in a terminal, or at once."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bigchem import strict
from bigchem.errors import UserError
from bigchem.launch.status import RunStatus, read_submission, run_status
from bigchem.launch.submit import alone

TIMEOUT_S = 20.0


def cancel(run_dir: Path, *, now: bool = False) -> str:
    """Tells a run to save and stop, and does not wait for it; a note of what was done.

    now: its job is ended, whatever is not saved is lost. UserError where the job cannot be reached.
    """
    if not (run_dir / "config.toml").is_file():
        raise UserError("no run folder: it has no config.toml", str(run_dir), "bigchem status lists runs")
    with alone(run_dir):
        status, submission = run_status(run_dir), read_submission(run_dir)
        if status.active is None:
            raise UserError(f"cannot reach job {status.job}: {status.reason}", str(run_dir), "try again later")
        if not status.active:
            return f"{status.state}: nothing to cancel"
        mark = {"by": getpass.getuser(), "time": time.time()}
        _write(run_dir, {**submission, "cancelled": mark})  # before: what ends now is not to be started again
        try:
            saves = _end_on_slurm(status, now) if submission["executor"] == "slurm" else _end_here(submission, now)
        except BaseException:
            _write(run_dir, submission)
            raise
    return f"job {status.job} was told to save and stop" if saves else f"job {status.job} was ended"


def _write(run_dir: Path, submission: dict[str, Any]) -> None:
    strict.write_atomically(run_dir / "submission.json", json.dumps(submission, indent=1))


def _end_on_slurm(status: RunStatus, now: bool) -> bool:
    """Whether the job will save first. A job that waits has nothing to save."""
    job = str(status.job)
    if not now and status.state != "queued" and _scancel("--signal=INT", job) is None:  # to all ranks, see signals.py
        return True
    trouble = _scancel(job)
    if trouble is not None:
        raise UserError(trouble, f"job {job}", "see `squeue --me`")
    return False


def _scancel(*arguments: str) -> str | None:
    """Slurm's words if it did not do so."""
    try:
        told = subprocess.run(
            ["scancel", *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"scancel: {error}"
    words = told.stderr.strip().splitlines()
    if told.returncode == 0 and not words:
        return None
    return words[-1] if words else f"scancel ended with exit code {told.returncode}"


def _end_here(submission: dict[str, Any], now: bool) -> bool:
    """The same for processes of this machine."""
    pid = int(submission["job"])
    if now:
        for each in [pid, *_descendants(pid)]:  # the parent first: it would start its children again
            _send(each, signal.SIGKILL)
        return False
    ranks = _children(pid) if submission["executor"] == "local" else [pid]  # one rank tells the others
    for each in ranks:
        _send(each, signal.SIGINT)
    return True


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    return [found for child in _children(pid) for found in (child, *_descendants(child))]
