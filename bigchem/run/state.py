"""state.json of a run folder: the run's state, for `bigchem status`. lifecycle.py has the allowed transitions.

A state torn by a power cut counts as none: the run still resumes from its newest checkpoint, and a copy of the damaged
file is kept. A later version's state is refused.
"""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import Count, Moment, RecordError
from bigchem.base.printable import printable
from bigchem.run.lifecycle import ENDS, End, State, Writer, may_write

PROGRESS = ("step", "steps", "early")
"""Fields that a new state inherits: how far the run is."""
FILE = "state.json"
_KINDS: dict[str, Any] = {"time": Moment, "step": Count, "steps": Count, "rank": Count, "given_up": bool}


def read_state(run_dir: Path) -> dict[str, Any]:
    """state.json, or {"state": "new"} if it is absent or torn. UserError if another version wrote it."""
    return inspect_state(run_dir)[0]


def inspect_state(run_dir: Path) -> tuple[dict[str, Any], str | None]:
    """The result of `read_state`, and the file's damage, if any."""
    file = run_dir / FILE
    try:
        table = json_file.load_object(file)
        name = table.pop("state", None)
    except FileNotFoundError:
        return {"state": State.NEW}, None
    except RecordError as error:
        return {"state": State.NEW}, f"{FILE} is {error.what}"
    if name is None:
        return {"state": State.NEW}, f"{FILE} has no 'state'"
    if name not in list(State) or table.get("end") not in [None, *End]:
        raise UserError("not a state that this version knows", str(file), "use the bigchem that wrote it")
    fields = {key: value for key, value in table.items() if value is not None}
    wrong = [key for key, kind in _KINDS.items() if key in fields and not _is(kind, fields[key])]
    fields = {key: value for key, value in fields.items() if key not in wrong}
    fields |= {key: printable(fields[key]) for key in ("reason", "early") if key in fields}
    return {"state": name, **fields}, f"{FILE}: wrong type of {', '.join(wrong)}" if wrong else None


def _is(kind: Any, value: object) -> bool:
    try:
        json_file.as_kind(kind, value, "")
    except RecordError:
        return False
    return True


def write_state(run_dir: Path, state: str, **fields: Any) -> None:
    """Replaces state.json unconditionally; a copy of a damaged one is kept. OSError if it cannot be written;
    FileNotFoundError if the run folder has been removed: it is not recreated."""
    with suppress(UserError):  # another version's: not damaged
        if (damage := inspect_state(run_dir)[1]) is not None:
            json_file.report_set_aside(run_dir / FILE, damage)
    table = {"state": state, "time": time.time(), **fields}
    atomic.write_atomically(run_dir / FILE, json.dumps(table, indent=1), make_folder=False)


def move(run_dir: Path, writer: Writer, state: State, **fields: Any) -> bool:
    """Replaces state.json if lifecycle.MOVES allows this writer to; whether it did. Progress is inherited.

    A rank whose node's clock is behind rank 0's writes no earlier time than rank 0 did: by the time, history.py tells
    this attempt's state from an earlier one's.
    """
    before = read_state(run_dir)
    if not may_write(writer, State(before["state"]), state):
        return False
    if writer is Writer.ANY_RANK:
        fields = {"time": max(time.time(), before.get("time", 0.0)), **fields}
    write_state(run_dir, state, **{**progress(before), **fields})
    return True


def end(run_dir: Path, writer: Writer, how: End, reason: str = "", **fields: Any) -> bool:
    """Records how an attempt ended, if lifecycle.MOVES allows this writer to; whether it did."""
    state = ENDS[how].state
    reasons = {"reason": reason} if reason else {}
    return state is not None and move(run_dir, writer, state, end=how, **reasons, **fields)


def progress(state: dict[str, Any]) -> dict[str, Any]:
    """The progress fields of a state."""
    return {key: state[key] for key in PROGRESS if key in state}
