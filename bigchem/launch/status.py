"""What runs are doing, read from their folders and, for Slurm jobs, from squeue."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bigchem.errors import UserError
from bigchem.train import checkpoint
from bigchem.train.state import read_state

SLURM_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class RunStatus:
    """One row of `bigchem status`.

    active: a job is queued or running; None where that cannot be known, and reason says why. checkpoint_age_s: seconds
    since it was published. early: it ended before its last step because validation said so; reason says how.
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
    job: str | None = None
    reason: str | None = None
    early: bool = False

    def is_done(self, steps: int) -> bool:
        """Whether the run is finished and evaluated, after so many steps or early."""
        return self.state == "finished" and (self.early or self.step >= steps)


def run_status(run_dir: Path) -> RunStatus:
    """The status of one run folder; state `new` where there is none."""
    state = read_state(run_dir)
    submission = _read_json(run_dir / "submission.json")
    alive, trouble = _alive(submission) if submission else (False, None)
    name = state["state"]
    if alive and name in ("prepared", "stopped"):
        name = "queued"
    elif alive and name == "trained":
        name = "evaluating"
    elif alive is False and (name == "running" or (name == "prepared" and submission)):
        name, trouble = "lost", "its job is gone without a word: killed, or the machine restarted"
    active = False if name == "finished" or (name == "failed" and not state.get("lost")) else alive
    row = _last_row(run_dir / "metrics.jsonl")
    newest = checkpoint.latest(run_dir / "checkpoints")
    step, steps = int(state.get("step", row.get("step", 0))), int(state.get("steps", 0))
    speed = row.get("tokens_per_s")
    return RunStatus(
        run=run_dir.name,
        state=name,
        active=active,
        step=step,
        steps=steps,
        loss=row.get("loss"),
        tokens_per_s=speed,
        eta_s=_eta(row, steps) if name == "running" else None,
        checkpoint=None if newest is None else newest.name,
        checkpoint_age_s=None if newest is None else time.time() - newest.stat().st_mtime,
        job=submission.get("job"),
        reason=(trouble if name == "queued" else None) or state.get("reason") or trouble or state.get("early"),
        early="early" in state,
    )


def all_runs(runs: Path) -> list[RunStatus]:
    """Every run folder under a folder, or the run folder itself."""
    if not runs.is_dir():
        raise UserError("no such folder", str(runs), "give a run folder, or the folder that holds run folders")
    if (runs / "config.toml").is_file():
        return [run_status(runs)]
    found = [run_status(p.parent) for p in sorted(runs.glob("*/config.toml"))]
    if not found:
        raise UserError("no runs here", str(runs), "bigchem submit CONFIG starts one")
    return found


def table(rows: list[RunStatus]) -> Table:
    """The rows as a table for the terminal."""
    made = Table(box=None)
    for name in ("run", "state", "step", "loss", "tokens/s", "eta", "checkpoint", "job", "reason"):
        made.add_column(name, overflow="fold", no_wrap=name not in ("checkpoint", "reason"))
    for row in rows:
        made.add_row(
            row.run,
            row.state,
            f"{row.step}/{row.steps}",
            "-" if row.loss is None else f"{row.loss:.4f}",
            "-" if row.tokens_per_s is None else f"{row.tokens_per_s:.0f}",
            "-" if row.eta_s is None else _duration(row.eta_s),
            "-" if row.checkpoint is None else f"{row.checkpoint} {_duration(row.checkpoint_age_s or 0)} ago",
            row.job or "-",
            row.reason or "",
        )
    return made


def to_json(rows: list[RunStatus]) -> list[dict[str, Any]]:
    """The rows as plain data."""
    return [asdict(row) for row in rows]


def _alive(submission: dict[str, Any]) -> tuple[bool | None, str | None]:
    """Whether the job of a submission is queued or running, and if that cannot be known (None) why."""
    if submission["executor"] != "slurm":
        if submission.get("host") not in (None, platform.node()):
            return None, f"it runs on {submission['host']}"
        return _process_lives(int(submission["job"])), None
    command = ["squeue", "--noheader", "--format=%T|%r", "--jobs", submission["job"]]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=SLURM_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"squeue: {type(error).__name__}"
    if told.returncode and "Invalid job id" not in told.stderr:
        return None, told.stderr.strip().splitlines()[-1] if told.stderr.strip() else "squeue failed"
    state, _, reason = told.stdout.strip().partition("|")
    return bool(state), f"waits: {reason}" if state == "PENDING" else None


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


def _last_row(path: Path) -> dict[str, Any]:
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


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s"
