"""`--after RUN|JOBID`: which Slurm jobs a submission waits for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.launch.runs.owner import jobs_of
from bigchem.launch.runs.status import RunStatus, run_status
from bigchem.launch.slurm import squeue
from bigchem.run import ownership

JOB_ID = r"\d+(_\d+)?"
DONE = ("finished", "trained")


def waited_for(names: Sequence[str], *, any_end: bool) -> tuple[str, ...]:
    """Slurm's ids of the jobs that were named, by id or by run folder. What has ended well is nothing to wait for.

    any_end: whether it does not matter how they end. UserError for what has failed or has no job, unless it does not
    matter, and for a job that Slurm does not know: it would take it for one that has ended.
    """
    queue = squeue.ask([name for name in names if re.fullmatch(JOB_ID, name)])
    found = [
        _known(name, queue, any_end=any_end) if re.fullmatch(JOB_ID, name) else _of_run(Path(name), any_end=any_end)
        for name in names
    ]
    return tuple(dict.fromkeys(job for job in found if job is not None))


def _known(job: str, queue: squeue.Queue, *, any_end: bool) -> str | None:
    where = f"--after {job}"
    if queue.trouble:
        raise UserError(f"cannot tell what has become of it: {queue.trouble}", where, "ask again later")
    found = [queue.jobs[name] for name in queue.jobs if name == job or name.startswith(f"{job}_")]
    if not found:
        raise UserError("Slurm does not know it, or no more", where, "if it has ended, leave --after out")
    if not all(one.gone for one in found):
        return job
    failed = next((one for one in found if one.state != "COMPLETED"), None)
    if failed is None or any_end:
        return None
    raise UserError(f"it is {failed.state}: what is to come after it would never begin", where, "add --after-any")


def _of_run(run_dir: Path, *, any_end: bool) -> str | None:
    if not (run_dir / "config.toml").is_file():
        raise UserError("neither a run folder nor the id of a Slurm job", f"--after {run_dir}", "bigchem status")
    status = run_status(run_dir)
    if status.active:
        return _slurm_job(run_dir)
    if status.active is None:
        raise UserError(f"cannot tell whether it still runs: {status.reason}", str(run_dir), "ask again later")
    if status.state in DONE or any_end:
        return None
    raise UserError(
        f"it is {_words(status)}: what is to come after it would never begin",
        f"--after {run_dir}",
        f"`bigchem resume {run_dir}` first, or --after-any",
    )


def _slurm_job(run_dir: Path) -> str:
    """The job with which an active run ends: the one that evaluates it, where that is one of its own."""
    jobs = jobs_of(ownership.read(run_dir))
    if not jobs:
        hint = "`bigchem submit RUN --wait && ...` waits for it"
        raise UserError("the run is no job of Slurm's", f"--after {run_dir}", hint)
    return jobs[-1]


def _words(status: RunStatus) -> str:
    return f"{status.state} ({status.reason})" if status.reason else status.state
