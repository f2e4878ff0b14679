"""history.jsonl of a run folder: a row for each attempt at the run, written when it has ended."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bigchem import strict
from bigchem.errors import UserError
from bigchem.launch.slurm import nodes
from bigchem.launch.slurm.said import error_file, since_start
from bigchem.train.checkpoint import newest_readable
from bigchem.train.lifecycle import ENDS, End, State, end_of
from bigchem.train.rows import goes_on
from bigchem.train.state import read_state

SAME_STEP = 3
"""So many attempts of one job that fail after the same step are the run's own fault: none of them came further."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run. time: when it began, in seconds since 1970. job: its id. restart: how often that job had
    been started before. from_step: of the checkpoint that it began from, to_step: the last step it did; the steps lost
    are to_step of one attempt less from_step of the next. seconds: that it lasted.

    end: see lifecycle.End. failed_nodes: those to blame for it, separated by commas, as far as that is known.
    """

    attempt: int
    job: str
    restart: int
    nodes: str
    ranks: int
    from_step: int
    time: float
    to_step: int = 0
    end: str = ""
    why: str = ""
    seconds: float = 0.0
    failed_nodes: str = ""


def begin(run_dir: Path, job: str, restart: int, nodes: str, ranks: int) -> None:
    """An attempt begins: rank 0 calls it. One that has left no word of its end is closed as vanished."""
    close(run_dir, after=False)
    newest = newest_readable(run_dir / "checkpoints")
    number = 1 + len(read(run_dir))
    step = 0 if newest is None else newest[1].step
    row = Attempt(number, job, restart, nodes, ranks, step, time.time())
    goes_on("attempt.json", lambda: strict.write_atomically(_open_file(run_dir), json.dumps(asdict(row))))


def close(run_dir: Path, *, after: bool = True, code: int = 0, said: Path | None = None) -> Attempt | None:
    """Writes the row of the attempt that is open, as state.json says how it ended; that row, or None if none is open.
    after: its processes have just ended, with the exit code `code`, and the job still runs. said: the file with what
    srun printed, if it is not where `submit` has it."""
    for begun in opened(run_dir):
        return _close(run_dir, begun, after=after, code=code, said=said)
    return None


def opened(run_dir: Path) -> list[Attempt]:
    """The attempt that has begun and not ended, or none."""
    try:
        return [Attempt(**json.loads(_open_file(run_dir).read_text(encoding="utf-8")))]
    except (OSError, ValueError, TypeError):
        return []


def _close(run_dir: Path, begun: Attempt, *, after: bool, code: int, said: Path | None) -> Attempt:
    rows = read(run_dir)
    if rows and rows[-1].attempt == begun.attempt:  # written, and then killed before this file was gone
        row = rows[-1]
    else:
        row = ended(begun, read_state(run_dir), time.time(), after=after, code=code)
        row = replace(row, failed_nodes=",".join(_blamed(run_dir, row, said)))
        _append(run_dir, row)
    with suppress(OSError):
        _open_file(run_dir).unlink()
    return row


def _blamed(run_dir: Path, row: Attempt, said: Path | None) -> list[str]:
    if row.end not in nodes.BLAMING:
        return []
    lines = since_start(said or error_file(run_dir, row.job), row.restart)
    with suppress(UserError):  # names of nodes in a form that is not Slurm's
        return nodes.blamed(row.end, row.why, lines, nodes.hosts_of(row.nodes, row.ranks))
    return []


def ended(begun: Attempt, state: dict[str, Any], now: float, *, after: bool, code: int = 0) -> Attempt:
    """How an attempt ended. state: what state.json says, of this attempt or an earlier one. Else see `close`. Pure."""
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
    """The attempts that have ended."""
    try:
        lines = (run_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        with suppress(ValueError, TypeError):  # a line that a full disk or a kill tore
            rows.append(Attempt(**json.loads(line)))
    return rows


def refusal(rows: Sequence[Attempt], restart: int, max_requeues: int) -> str | None:
    """Why the job of the last attempt is not to be started again, or None. restart: as in Attempt. Pure."""
    if restart >= max_requeues:
        return f"started again {restart} times already (max_requeues): submit it again to go on"
    last = rows[-SAME_STEP:]
    same = {(row.job, row.to_step) for row in last}
    if len(last) == SAME_STEP and len(same) == 1 and all(row.end in _COUNTED for row in last):
        ends = ", ".join(row.end for row in last)
        told = f"{SAME_STEP} attempts in a row ended after step {last[-1].to_step} ({ends})"
        return f"{told}: submit it again when the cause is mended"
    return None


_COUNTED = [end for end, rule in ENDS.items() if rule.counts]


def _exit(code: int) -> str:
    """In words; above 128 a shell, and so srun, names a signal."""
    return f"exit code {code}" + (f", signal {code - 128}" if code > 128 else "")


def _append(run_dir: Path, row: Attempt) -> None:
    def write() -> None:
        with (run_dir / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    goes_on("history.jsonl", write)


def _open_file(run_dir: Path) -> Path:
    return run_dir / "attempt.json"
