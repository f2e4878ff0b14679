"""`--after RUN|JOBID`: which Slurm jobs a submission waits for."""

import re
from collections.abc import Sequence
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.launch.runs.owner import jobs_of
from bigchem.launch.runs.status import has_succeeded, run_status
from bigchem.launch.slurm import squeue
from bigchem.run import ownership

JOB_ID = r"\d+(_\d+)?"


def waited_for(names: Sequence[str], *, any_end: bool) -> tuple[str, ...]:
    """Slurm's ids of jobs named by id or by run folder. Those that have succeeded are skipped.

    any_end: how they end does not matter. UserError for a run that failed or has no job, unless any_end, and for a job
    that Slurm does not know: Slurm would treat it as ended.
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
        raise UserError(f"cannot tell its state: {queue.trouble}", where, "try again later")
    found = [queue.jobs[name] for name in queue.jobs if name == job or name.startswith(f"{job}_")]
    if not found:
        raise UserError("Slurm does not know it, or no longer", where, "if it has ended, omit --after")
    if not all(task.gone for task in found):
        return job
    failed = next((task for task in found if task.state != "COMPLETED"), None)
    if failed is None or any_end:
        return None
    raise UserError(f"it is {failed.state}: a job that waits for it would never start", where, "add --after-any")


def _of_run(run_dir: Path, *, any_end: bool) -> str | None:
    if not (run_dir / "config.toml").is_file():
        raise UserError("neither a run folder nor the id of a Slurm job", f"--after {run_dir}", "bigchem status")
    status = run_status(run_dir)
    if status.active:
        return _slurm_job(run_dir)
    if status.active is None:
        raise UserError(f"cannot tell whether it still runs: {status.reason}", str(run_dir), "try again later")
    if any_end or has_succeeded(run_dir, status):
        return None
    ended = "trained, but not evaluated" if status.state == "trained" else status.state
    reason = f" ({status.reason})" if status.reason else ""
    raise UserError(
        f"it is {ended}{reason}: a job that waits for it would never start",
        f"--after {run_dir}",
        f"`bigchem resume {run_dir}` first, or --after-any",
    )


def _slurm_job(run_dir: Path) -> str:
    """The last job of an active run: the one that evaluates it, if that is a separate job."""
    jobs = jobs_of(ownership.read(run_dir))
    if not jobs:
        hint = "`bigchem submit RUN --wait && ...` waits for it"
        raise UserError("the run is not a Slurm job", f"--after {run_dir}", hint)
    return jobs[-1]
