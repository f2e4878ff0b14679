"""`bigchem doctor --job` on this job's ranks, and `bigchem doctor --cluster P`: the same as a separate job."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.base.printable import markup
from bigchem.launch.cluster.executors import Submission, make_executor, submit_call
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.cluster.snapshot import snapshot
from bigchem.launch.doctor.facts import Check
from bigchem.launch.rendezvous.environment import rendezvous
from bigchem.launch.rendezvous.members import AbsentRankError, ranges
from bigchem.launch.rendezvous.secret import rendezvous_key
from bigchem.launch.slurm import squeue
from bigchem.launch.slurm.options import OneShot

TIME_LIMIT_MIN = 10
"""The job's time limit: short jobs start sooner."""
POLL_S = 0.5
GRACE_S = 10.0
"""Time for a report to appear on a network file system after its job has ended."""
Report = dict[str, Any]


def here(folder: Path, record: Callable[[BaseException], object] = lambda error: None) -> tuple[Report, bool]:
    """Examines this process's job, under torchrun, srun or submitit. Returns the report, on every rank, and whether
    this is rank 0. folder: one that all nodes should share. record: see early_exit.exit_together."""
    from bigchem.launch import early_exit
    from bigchem.launch.doctor.measure import examine_job
    from bigchem.launch.rendezvous.process_group import finish, start

    place = rendezvous(os.environ, os.getpid())
    try:
        with redirect_stdout(sys.stderr):  # compiling an operation prints a line
            device = start(place, key=rendezvous_key(folder / ".doctor", place))
    except AbsentRankError as error:
        raise UserError(str(error), "rendezvous", "see the output of those ranks, and `sinfo -R` on Slurm") from None
    with early_exit.exit_together(record):
        checks, ranks = examine_job(place, device, folder.expanduser().resolve())
        finish()
    return {"checks": [vars(check) for check in checks], "ranks": [asdict(rank) for rank in ranks]}, place.rank == 0


@dataclass(frozen=True)
class Visit:
    """The callable that submitit pickles."""

    folder: str
    env: tuple[tuple[str, str], ...]

    def __call__(self) -> None:
        """Examines, and writes report.json, or error.txt for a user error."""
        os.environ.update(self.env)
        folder = Path(self.folder)

        def record(error: BaseException) -> None:
            if isinstance(error, UserError):
                atomic.write_atomically(folder / "error.txt", str(error))

        try:
            report, lead = here(folder, record)
        except UserError as error:
            record(error)
            raise
        if lead:
            atomic.write_atomically(folder / "report.json", json.dumps(report, indent=1))


def on_cluster(
    profile: ClusterProfile, runs: Path, on_change: Callable[[str], None], *, options: OneShot | None = None
) -> Report:
    """Submits an examination as a job, waits for it, and returns its report. If interrupted, cancels the job.

    runs: the parent of run folders; the job's own folder is created in it, and removed on success. options: for this
    submission. UserError if the job ended without a report.
    """
    short = profile.model_copy(update={"time_min": min(profile.time_min, TIME_LIMIT_MIN)})
    folder = runs.expanduser().resolve() / ".doctor" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    code = snapshot(folder / "code")
    made = Submission(short, folder / "submitit", "bigchem-doctor", code, [folder], options, is_run=False)
    executor = make_executor(made)
    visit = Visit(str(folder), tuple(profile.env.items()))
    job = submit_call(lambda: executor.submit(visit), str(folder))
    on_change(f"job {job.job_id}: {profile.nodes} nodes of {profile.tasks_per_node} tasks; logs in {folder}")
    try:
        report = _wait(job, folder, slurm=profile.executor == "slurm", on_change=on_change)
    except BaseException:
        with suppress(Exception):
            job.cancel()
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _wait(job: Any, folder: Path, *, slurm: bool, on_change: Callable[[str], None]) -> Report:
    reported, gone_since = "", None
    while True:
        for _ in range(4):
            if (folder / "report.json").is_file():
                report: Report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
                return report
            if (folder / "error.txt").is_file():
                raise UserError((folder / "error.txt").read_text(encoding="utf-8"), None, f"logs: {folder}")
            time.sleep(POLL_S)
        state = _state(str(job.job_id)) if slurm else ("RUNNING" if not job.done() else None)
        if state and state != reported:
            reported = state
            on_change(f"job {job.job_id}: {state}")
        gone_since = None if state else gone_since or time.monotonic()
        if gone_since and time.monotonic() - gone_since > GRACE_S:
            raise UserError(f"job {job.job_id} ended without a report", str(folder), _last_line(folder))


def _state(job: str) -> str | None:
    """A job's state in squeue; None once it is gone."""
    queue = squeue.ask([job])
    if queue.trouble is not None:
        return queue.trouble
    found = queue.jobs.get(job)
    return None if found is None or found.gone else " ".join(filter(None, (found.state, found.reason)))


def _last_line(folder: Path) -> str:
    logs = sorted((folder / "submitit").glob("*.err"), key=lambda path: path.stat().st_mtime)
    lines = [line for log in logs for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return f"the last line of its logs: {lines[-1]}" if lines else "it has written no logs: was it cancelled?"


def checks_of(report: Report) -> list[Check]:
    """The checks of a report."""
    return [Check(**check) for check in report["checks"]]


def rank_table(report: Report) -> Table:
    """One row per rank: where it is, and what it measured."""
    made = Table("rank", "host", "local", "device", "cores", "threads", "TFLOP/s", "clock", "folder", box=None)
    for r in report["ranks"]:
        visible = "-" if r["visible_s"] is None else f"{r['visible_s']:.2f} s"
        cells = (r["rank"], r["host"], r["local_rank"], r["device"], ranges(r["cores"]), r["threads"])
        made.add_row(*map(markup, cells), f"{r['gemm'] / 1e12:.3g}", f"{r['skew_s']:+.3f} s", visible)
    return made
