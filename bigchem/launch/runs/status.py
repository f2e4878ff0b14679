"""The status of runs, from their folders and, for Slurm jobs, from one call of squeue for all of them."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base import json_file, jsonl, toml
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.base.printable import printable
from bigchem.config import RunConfig
from bigchem.launch.runs import history
from bigchem.launch.runs.owner import Liveness, cancelled_by, owners, owners_or_errors
from bigchem.launch.runs.usage import Used, efficiency, used
from bigchem.launch.slurm import squeue
from bigchem.run import ownership
from bigchem.run.lifecycle import Job, State, is_active, is_restarted, shown
from bigchem.run.ownership import Owner
from bigchem.run.state import inspect_state
from bigchem.train.checkpoint import store

ETA_LIMIT_S = 1e10
"""Longest estimate that is shown: three centuries."""
UNREADABLE = "unreadable"
"""State of a run whose records cannot be read at all."""


@dataclass(frozen=True)
class RunStatus:
    """One row of `bigchem status`.

    active: a job is queued or running; None if unknown, and reason says why. checkpoint_age_s: seconds since it was
    published; None if a newer one has just replaced it. restarts: how often the run was restarted. nodes: Slurm's list,
    or a host. state_age_s: seconds since the run last reported its state. early: validation ended it before its last
    step; reason says how. starts_at: when Slurm expects a pending job to start, in seconds since 1970. seconds, hours:
    duration of its attempts; hours are times their ranks, which hours_of names: GPU, or process. efficiency: share of
    the seconds spent in training; see usage.py. damage: damaged files of the folder; the rest of the row is valid
    without them.
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
    state_age_s: float | None = None
    early: bool = False
    starts_at: float | None = None
    seconds: float = 0.0
    hours: float = 0.0
    hours_of: str = "process"
    efficiency: float | None = None
    damage: str | None = None

    def is_done(self, steps: int) -> bool:
        """Whether the run is finished and evaluated, after so many steps or early."""
        return self.state == "finished" and (self.early or self.step >= steps)


def run_status(run_dir: Path) -> RunStatus:
    """The status of one run folder; state `new` if there is none. UserError if its records cannot be read."""
    (found,) = owners([run_dir])
    return _status(run_dir, *found)


def statuses(run_dirs: Sequence[Path]) -> list[RunStatus]:
    """The status of each run folder; `unreadable`, with the reason, if its records cannot be read."""
    rows = []
    for run_dir, found in zip(run_dirs, owners_or_errors(run_dirs), strict=True):
        try:
            if isinstance(found, Exception):
                raise found
            rows.append(_status(run_dir, *found))
        except (UserError, OSError) as error:
            rows.append(RunStatus(printable(run_dir.name), UNREADABLE, None, reason=printable(_one_line(error))))
    return rows


def _one_line(error: UserError | OSError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    where = f"{error.where}: " if error.where else ""
    return f"{where}{error.what}" + (f"; {error.hint}" if error.hint else "")


def pause_s(run_dir: Path) -> float:
    """Seconds between two checks while waiting for a run."""
    owner = ownership.read(run_dir)
    return squeue.POLL_S if owner is not None and owner.on_slurm else 0.5


def _status(run_dir: Path, owner: Owner | None, alive: Liveness) -> RunStatus:
    state, torn = inspect_state(run_dir)
    may_evaluate = state["state"] == State.TRAINED and alive.job is Job.RUNS
    evaluated = not may_evaluate or is_evaluated(run_dir)
    name, reason = _state_and_reason(state, alive, cancelled_by(run_dir, owner), evaluated=evaluated)
    if name == State.TRAINED and alive.job is not Job.UNKNOWN and is_scored(run_dir, state.get("step")):
        name, reason = State.FINISHED, None  # by `bigchem evaluate`, which leaves state.json to the run's own jobs
    row, torn_metrics = last_row(run_dir / "metrics.jsonl")
    newest = store.latest(run_dir / "checkpoints")
    now, steps = time.time(), int(state.get("steps", 0))
    (ended, torn_history), (opened, torn_attempt) = (
        history.read_with_damage(run_dir),
        history.read_open_with_damage(run_dir),
    )
    spent = _used(opened, ended, now if alive.job is Job.RUNS else float(state.get("time", 0)))
    return RunStatus(
        run=printable(run_dir.name),
        state=name,
        active=is_active(state, alive.job),
        step=int(state.get("step", row.get("step", 0.0))),
        steps=steps,
        loss=row.get("loss"),
        tokens_per_s=row.get("tokens_per_s"),
        eta_s=_eta(row, steps) if name == "running" else None,
        checkpoint=None if newest is None else newest.name,
        checkpoint_age_s=_age_s(newest, now),
        restarts=_restarts(len(ended), alive, over=not opened and not is_restarted(state)),
        nodes=None if alive.nodes is None else printable(alive.nodes),
        job=alive.id or (None if owner is None else owner.job),
        reason=None if reason is None else printable(reason),
        state_age_s=now - state["time"] if "time" in state else None,
        early="early" in state,
        starts_at=alive.starts if alive.waits else None,
        seconds=round(spent.seconds, 1),
        hours=round(spent.hours, 4),
        hours_of=_hours_of(run_dir),
        efficiency=efficiency(row.get("training_s"), spent.seconds),
        damage="; ".join(filter(None, (torn, torn_history, torn_attempt, torn_metrics))) or None,
    )


def _age_s(checkpoint: Path | None, now: float) -> float | None:
    """Seconds since a checkpoint was published; None without one, or if the run has replaced it meanwhile."""
    try:
        return None if checkpoint is None else now - checkpoint.stat().st_mtime
    except FileNotFoundError:
        return None


def _used(opened: Sequence[history.Attempt], ended: Sequence[history.Attempt], until: float) -> Used:
    """What the run has used until then. An attempt with both a row and a remaining attempt.json is counted once."""
    known = {row.attempt for row in ended}
    return used([*ended, *(row for row in opened if row.attempt not in known)], until)


def _hours_of(run_dir: Path) -> str:
    """What the run's ranks are: GPUs, or processes."""
    try:
        device = json_file.load_object(run_dir / "model.json").get("device", "cpu")
    except (OSError, RecordError):
        return "process"
    return "process" if device == "cpu" else "GPU"


def has_succeeded(run_dir: Path, status: RunStatus) -> bool:
    """Whether a run that is over was trained and, if due, evaluated, by a job or by `bigchem evaluate`."""
    return status.state == State.FINISHED or (status.state == State.TRAINED and not is_evaluated(run_dir))


def is_scored(run_dir: Path, step: int | None) -> bool:
    """Whether the run's results are of its training up to `step`."""
    try:
        training = json_file.load_object(run_dir / "results" / "results.json").get("training")
    except (OSError, RecordError):
        return False
    return isinstance(training, dict) and training.get("steps_done") == step


def is_evaluated(run_dir: Path) -> bool:
    """Whether a run's job, or another, is to evaluate it once it is trained; assumed if its records cannot be read."""
    try:
        owner = ownership.read(run_dir)
        separate = owner is not None and owner.evaluation is not None
        return separate or toml.load(RunConfig, run_dir / "config.toml").evaluate.at_end
    except (UserError, OSError):
        return True


def _state_and_reason(
    state: dict[str, Any], alive: Liveness, cancelled: str | None, *, evaluated: bool = True
) -> tuple[str, str | None]:
    """The state to show, and why. cancelled: by whom. evaluated: see `shown`."""
    recorded, reason = state["state"], state.get("reason") or state.get("early")
    name = shown(state, alive.job, cancelled=cancelled is not None, evaluated=evaluated)
    if alive.job is Job.UNKNOWN and recorded != State.FINISHED:
        return name, f"{alive.why}; the run last reported {recorded}"
    if name == "queued":
        return name, alive.why or reason
    if name == "stopping" and cancelled is not None:
        return name, f"cancelled by {cancelled}"
    if name == "cancelled":
        return name, f"by {cancelled}"
    if name == "lost":
        return name, f"its job is gone: {alive.why or 'killed, or the machine restarted'}"
    return name, reason


def _restarts(ended: int, job: Liveness, *, over: bool) -> int | None:
    """Attempts that have ended, except the last one of a run that is over or only being evaluated; without a history,
    Slurm's count."""
    if not ended:
        return job.restarts
    return ended - 1 if over or not job.lives else ended


def all_runs(named: Sequence[Path]) -> list[RunStatus]:
    """The status of the given run folders, and of all run folders in the other folders given."""
    found: list[Path] = []
    for path in named:
        if not path.is_dir():
            raise UserError("no such folder", str(path), "give a run folder, or the folder that holds run folders")
        here = [path] if (path / "config.toml").is_file() else [f.parent for f in sorted(path.glob("*/config.toml"))]
        if not here:
            raise UserError("no runs here", str(path), "bigchem submit CONFIG starts one")
        found += here
    return statuses(found)


def last_row(path: Path) -> tuple[dict[str, float], str | None]:
    """The numbers in the last complete row of metrics.jsonl, read from the file's end; and any damage after it."""
    row, damage = jsonl.last(path, {"step": int})
    numbers = {name: found for name, value in row.items() if (found := json_file.number(value)) is not None}
    return numbers, None if damage is None else f"{path.name} is {damage}"


def _eta(row: dict[str, float], steps: int) -> float | None:
    """Seconds left, at the last row's speed and the run's mean tokens per step."""
    try:
        left = (steps - row["step"]) * row["tokens"] / row["step"] / row["tokens_per_s"]
    except (KeyError, ZeroDivisionError):
        return None
    return left if math.isfinite(left) and left < ETA_LIMIT_S else None
