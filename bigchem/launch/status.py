"""What runs are doing, read from their folders and, for Slurm jobs, from one call of squeue for all of them."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bigchem.errors import UserError
from bigchem.launch import history, squeue
from bigchem.progress import duration
from bigchem.train import checkpoint
from bigchem.train.state import read_state


@dataclass(frozen=True)
class RunStatus:
    """One row of `bigchem status`.

    active: a job is queued or running; None where that cannot be known, and reason says why. checkpoint_age_s: seconds
    since it was published. restarts: how often the run was started again. nodes: Slurm's list, or a host. told_s:
    seconds since the run itself has said its state. early: it ended before its last step because validation said so;
    reason says how.
    """

    run: str
    state: str
    active: bool | None
    step: int = 0
    steps: int = 0
    loss: float | None = None
    tokens_per_s: float | None = None
    eta_s: float | None = None
    checkpoint: str | None = None
    checkpoint_age_s: float | None = None
    restarts: int | None = None
    nodes: str | None = None
    job: str | None = None
    reason: str | None = None
    told_s: float | None = None
    early: bool = False

    def is_done(self, steps: int) -> bool:
        """Whether the run is finished and evaluated, after so many steps or early."""
        return self.state == "finished" and (self.early or self.step >= steps)


@dataclass(frozen=True)
class Alive:
    """What is known of a run's job. lives: queued or running; None where that cannot be known, and why says why not. If
    it has ended, why may say how. id: on Slurm, which of its jobs."""

    lives: bool | None = False
    waits: bool = False
    why: str | None = None
    nodes: str | None = None
    restarts: int | None = None
    id: str | None = None


def run_status(run_dir: Path) -> RunStatus:
    """The status of one run folder; state `new` where there is none."""
    return statuses([run_dir])[0]


def statuses(run_dirs: Sequence[Path]) -> list[RunStatus]:
    """The status of each run folder."""
    submissions = [read_submission(run_dir) for run_dir in run_dirs]
    queue = squeue.ask([job for s in submissions if s.get("executor") == "slurm" for job in _jobs(s)])
    return [_status(run_dir, s, _alive(s, queue)) for run_dir, s in zip(run_dirs, submissions, strict=True)]


def pause_s(run_dir: Path) -> float:
    """Seconds between two looks at a run that is waited for: slurmctld answers everybody's questions."""
    return 5.0 if read_submission(run_dir).get("executor") == "slurm" else 0.5


def read_submission(run_dir: Path) -> dict[str, Any]:
    """submission.json: which job has the run; empty where it was not submitted."""
    return _read_json(run_dir / "submission.json")


def _status(run_dir: Path, submission: dict[str, Any], job: Alive) -> RunStatus:
    state = read_state(run_dir)
    name, reason = _state_and_reason(state, submission, job)
    row = last_row(run_dir / "metrics.jsonl")
    newest = checkpoint.latest(run_dir / "checkpoints")
    now, steps = time.time(), int(state.get("steps", 0))
    return RunStatus(
        run=run_dir.name,
        state=name,
        active=False if name == "finished" or (name == "failed" and not _again(state)) else job.lives,
        step=int(state.get("step", row.get("step", 0))),
        steps=steps,
        loss=row.get("loss"),
        tokens_per_s=row.get("tokens_per_s"),
        eta_s=_eta(row, steps) if name == "running" else None,
        checkpoint=None if newest is None else newest.name,
        checkpoint_age_s=None if newest is None else now - newest.stat().st_mtime,
        restarts=_restarts(run_dir, job),
        nodes=job.nodes,
        job=job.id or submission.get("job"),
        reason=reason,
        told_s=now - state["time"] if "time" in state else None,
        early="early" in state,
    )


def _state_and_reason(state: dict[str, Any], submission: dict[str, Any], job: Alive) -> tuple[str, str | None]:
    """What the run's own word and its job's state come to."""
    name, reason = state["state"], state.get("reason") or state.get("early")
    if name == "finished" or (name == "failed" and not job.lives):
        return name, reason
    if job.lives is None:
        return name, f"{job.why}; {name} is what the run last said"
    cancelled = submission.get("cancelled")
    if job.lives:
        return _of_living(state, job, reason, cancelled)
    if cancelled and name != "trained":
        return "cancelled", f"by {cancelled['by']}"
    if name == "running" or (name == "prepared" and submission):
        return "lost", f"its job is gone: {job.why or 'killed without a word, or the machine restarted'}"
    return name, reason


def _again(state: dict[str, Any]) -> bool:
    """Whether the run ended so that its job starts it again."""
    return any(state.get(word) for word in ("again", "lost", "hung"))


def _of_living(
    state: dict[str, Any], job: Alive, reason: str | None, cancelled: dict[str, Any] | None
) -> tuple[str, str | None]:
    name = state["state"]
    if job.waits:
        return "queued", job.why or reason
    if cancelled:
        return "stopping", f"cancelled by {cancelled['by']}"
    if name == "prepared" or _again(state):
        return "starting", reason
    return {"trained": "evaluating", "stopped": "stopping"}.get(name, name), reason


def _restarts(run_dir: Path, job: Alive) -> int | None:
    """Attempts that have ended, but for the last one of a run that is over; without their history, what Slurm says."""
    ended = len(history.read(run_dir))
    if not ended:
        return job.restarts
    return ended if job.lives else ended - 1


def all_runs(named: Sequence[Path]) -> list[RunStatus]:
    """Run folders, and all under folders that hold some."""
    found: list[Path] = []
    for path in named:
        if not path.is_dir():
            raise UserError("no such folder", str(path), "give a run folder, or the folder that holds run folders")
        here = [path] if (path / "config.toml").is_file() else [f.parent for f in sorted(path.glob("*/config.toml"))]
        if not here:
            raise UserError("no runs here", str(path), "bigchem submit CONFIG starts one")
        found += here
    return statuses(found)


def table(rows: Sequence[RunStatus]) -> Table:
    """The rows as a table for the terminal."""
    made = Table(box=None)
    columns = ("run", "state", "step", "loss", "tokens/s", "eta", "checkpoint", "restarts", "nodes", "job", "reason")
    for name in columns:
        made.add_column(name, overflow="fold", no_wrap=name not in ("checkpoint", "nodes", "reason"))
    for row in rows:
        told = "" if row.active is not None or row.told_s is None else f" {duration(row.told_s)} ago"
        made.add_row(
            row.run,
            row.state + told,
            f"{row.step}/{row.steps}",
            "-" if row.loss is None else f"{row.loss:.4f}",
            "-" if row.tokens_per_s is None else f"{row.tokens_per_s:.0f}",
            "-" if row.eta_s is None else duration(row.eta_s),
            "-" if row.checkpoint is None else f"{row.checkpoint} {duration(row.checkpoint_age_s or 0)} ago",
            "-" if row.restarts is None else str(row.restarts),
            row.nodes or "-",
            row.job or "-",
            row.reason or "",
        )
    return made


def to_json(rows: Sequence[RunStatus]) -> list[dict[str, Any]]:
    """The rows as plain data."""
    return [asdict(row) for row in rows]


def _alive(submission: dict[str, Any], queue: squeue.Queue) -> Alive:
    """Whether the job of a submission is queued or running."""
    if not submission:
        return Alive()
    if submission["executor"] != "slurm":
        host = submission.get("host")
        if host not in (None, platform.node()):
            return Alive(None, why=f"it was started on {host}: ask there", nodes=host)
        return Alive(_process_lives(int(submission["job"])), nodes=host)
    if queue.trouble:
        return Alive(None, why=queue.trouble)
    found = [_alive_on_slurm(job, queue.jobs[job]) for job in _jobs(submission) if job in queue.jobs]
    return next((job for job in found if job.lives), found[0] if found else Alive())


def _jobs(submission: dict[str, Any]) -> list[str]:
    """Slurm's ids of a run's jobs: the one that trains it and, where there is one, the one that then evaluates it."""
    return [str(submission[name]) for name in ("job", "evaluation") if name in submission]


def _alive_on_slurm(name: str, job: squeue.Job) -> Alive:
    why = job.reason if job.waits else None
    if job.gone:
        why = " ".join(word for word in (job.state, f"({job.reason})" if job.reason else "") if word)
    return Alive(not job.gone, job.waits, why, job.nodes, job.restarts, name)


def _process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a finished child that its parent has not waited for still has a pid
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def last_row(path: Path) -> dict[str, Any]:
    """The last whole line of metrics.jsonl, read from the file's end."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        try:
            row: dict[str, Any] = json.loads(line)
            return row
        except json.JSONDecodeError:
            continue
    return {}


def _eta(row: dict[str, Any], steps: int) -> float | None:
    """Seconds left, at the last row's speed and the run's mean tokens per step."""
    try:
        return float((steps - row["step"]) * row["tokens"] / row["step"] / row["tokens_per_s"])
    except (KeyError, ZeroDivisionError):
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return table
