"""A run folder's history.jsonl: one row for each attempt at the run, written when it has ended."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bigchem.base import atomic, json_file, jsonl, toml
from bigchem.base.errors import UserError
from bigchem.base.json_file import Count, Moment, RecordError
from bigchem.launch.slurm import nodes
from bigchem.launch.slurm.job_output import error_file, since_start
from bigchem.run.lifecycle import ENDS, End, State, end_of
from bigchem.run.log_files import try_write
from bigchem.run.state import read_state
from bigchem.train.checkpoint.store import newest_readable

FILE = "history.jsonl"
SAME_STEP = 3
"""If this many attempts of one job fail after the same step, the run itself is at fault."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run. time: its start, in seconds since 1970. restart: how often its job had been started before.
    from_step: of the checkpoint it started from. to_step: its last step. An attempt's to_step minus the next one's
    from_step is the number of steps lost. seconds: its duration.

    end: see lifecycle.End. failed_nodes: the nodes to blame, separated by commas, if known.
    """

    attempt: Count
    job: str
    restart: Count
    nodes: str
    ranks: Count
    from_step: Count
    time: Moment
    to_step: Count = 0
    end: str = ""
    why: str = ""
    seconds: Annotated[float, Field(ge=-1e11, le=1e11)] = 0.0
    failed_nodes: str = ""


def begin(run_dir: Path, job: str, restart: int, nodes: str, ranks: int) -> None:
    """Records that an attempt begins; rank 0 calls it. An earlier one without a recorded end is closed as vanished."""
    close(run_dir, after=False)
    if (damage := read_open_with_damage(run_dir)[1]) is not None:
        json_file.report_set_aside(_open_file(run_dir), damage)
    newest = newest_readable(run_dir / "checkpoints")
    number = 1 + len(read(run_dir))
    step = 0 if newest is None else newest[1].step
    row = Attempt(number, job, restart, nodes, ranks, step, time.time())
    try_write("attempt.json", lambda: atomic.write_atomically(_open_file(run_dir), json.dumps(asdict(row))))


def close(run_dir: Path, *, after: bool = True, code: int = 0, output: Path | None = None) -> Attempt | None:
    """Writes the row of the open attempt, with its end from state.json; returns it, or None if no attempt is open.
    after: its processes have just ended, with the exit code `code`, and the job still runs. output: the file with
    srun's errors, if it is not where `submit` puts it."""
    for begun in open_attempt(run_dir):
        return _close(run_dir, begun, after=after, code=code, output=output)
    return None


def open_attempt(run_dir: Path) -> list[Attempt]:
    """The attempt that has begun and not ended, if any."""
    return read_open_with_damage(run_dir)[0]


def read_open_with_damage(run_dir: Path) -> tuple[list[Attempt], str | None]:
    """The same, and what is damaged in its file, if anything."""
    try:
        return [_attempt(json_file.load(_open_file(run_dir)))], None
    except RecordError as error:
        return [], f"attempt.json is damaged: {error.what}"
    except OSError:
        return [], None


def _close(run_dir: Path, begun: Attempt, *, after: bool, code: int, output: Path | None) -> Attempt:
    rows = read(run_dir)
    if rows and rows[-1].attempt == begun.attempt:  # killed after the row was written, before attempt.json was removed
        row = rows[-1]
    else:
        row = outcome_of(begun, read_state(run_dir), time.time(), after=after, code=code)
        row = replace(row, failed_nodes=",".join(_blamed(run_dir, row, output)))
        _append(run_dir, row)
    with suppress(OSError):
        _open_file(run_dir).unlink()
    return row


def _blamed(run_dir: Path, row: Attempt, output: Path | None) -> list[str]:
    if row.end not in nodes.BLAMING:
        return []
    lines = since_start(output or error_file(run_dir, row.job), row.restart)
    with suppress(UserError):  # a nodelist that is not in Slurm's form
        return nodes.blamed(row.end, row.why, lines, nodes.hosts_of(row.nodes, row.ranks))
    return []


def outcome_of(begun: Attempt, state: dict[str, Any], now: float, *, after: bool, code: int = 0) -> Attempt:
    """How an attempt ended. state: from state.json, of this or an earlier attempt. The rest as in `close`. Pure."""
    own = state.get("time", 0.0) >= begun.time
    end, why = end_of(state) if own else None, str(state.get("reason") or state.get("early") or "") if own else ""
    if end is None and own and state["state"] in (State.TRAINED, State.FINISHED):
        end = End(state["state"])
    elif end is None:
        end, why = (End.KILLED, _exit(code)) if after else (End.VANISHED, why)
    until = now if after else state["time"] if own else begun.time
    step = max(begun.from_step, int(state.get("step", 0))) if own else begun.from_step
    return replace(begun, to_step=step, end=end, why=why, seconds=round(until - begun.time, 1))


def read(run_dir: Path) -> list[Attempt]:
    """The attempts that have ended, without damaged rows."""
    return read_with_damage(run_dir)[0]


def read_with_damage(run_dir: Path) -> tuple[list[Attempt], str | None]:
    """The same, and what is damaged in the file, if anything. The file is not repaired: rows are only added."""
    rows, bad = list[Attempt](), list[str]()
    try:
        for line in jsonl.lines(run_dir / FILE):
            try:
                rows.append(_attempt(line.row) if line.row is not None else _bad(line.why))
            except RecordError as error:
                bad.append(f"line {line.number}: {error.what}")
    except OSError as error:
        return rows, f"{FILE} cannot be read: {error.strerror}"
    return rows, f"{FILE}: {jsonl.damage_summary(bad)}" if bad else None


def _attempt(table: Any) -> Attempt:
    row = json_file.as_kind(Attempt, table, "")
    return row if row.end in ("", *End) else _bad(f"unknown end {toml.quoted(row.end)}")


def _bad(why: str) -> Attempt:
    raise RecordError(why)


def why_not_requeue(rows: Sequence[Attempt], restart: int, max_requeues: int) -> str | None:
    """Why not to requeue the job of the last attempt; None to requeue it. restart: as in Attempt. Pure."""
    if restart >= max_requeues:
        return f"restarted {restart} times already (max_requeues): submit it again to continue"
    last = rows[-SAME_STEP:]
    same = {(row.job, row.to_step) for row in last}
    if len(last) == SAME_STEP and len(same) == 1 and all(row.end in _COUNTED for row in last):
        ends = ", ".join(row.end for row in last)
        what = f"{SAME_STEP} attempts in a row ended after step {last[-1].to_step} ({ends})"
        return f"{what}: fix the cause, then submit it again"
    return None


_COUNTED = [end for end, rule in ENDS.items() if rule.counts]


def _exit(code: int) -> str:
    """The exit code; above 128 a shell, and so srun, means a signal."""
    return f"exit code {code}" + (f", signal {code - 128}" if code > 128 else "")


def _append(run_dir: Path, row: Attempt) -> None:
    def write() -> None:
        after_torn = "" if jsonl.ends_with_newline(run_dir / FILE) else "\n"
        with (run_dir / FILE).open("a", encoding="utf-8") as file:
            file.write(after_torn + json.dumps(asdict(row)) + "\n")

    try_write(FILE, write)


def _open_file(run_dir: Path) -> Path:
    return run_dir / "attempt.json"
