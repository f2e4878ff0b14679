"""state.json of a run folder: what the run is doing, for `bigchem status`. What may follow what is in lifecycle.py.

A state that a power cut has torn counts as none: the run goes on from its newest checkpoint all the same. The damaged
file stays beside the next one that is written. A state that a later version wrote is refused.
"""

from __future__ import annotations

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
"""What a new state takes over from the one before: how far the run is."""
FILE = "state.json"
_KINDS: dict[str, Any] = {"time": Moment, "step": Count, "steps": Count, "rank": Count, "given_up": bool}


def read_state(run_dir: Path) -> dict[str, Any]:
    """state.json, or {"state": "new"} where there is none, or a torn one. UserError for one of another version."""
    return look_at_state(run_dir)[0]


def look_at_state(run_dir: Path) -> tuple[dict[str, Any], str | None]:
    """What `read_state` gives, and what is damaged in the file, if anything is."""
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
    """Replaces state.json, whatever it says; a damaged one stays beside it. OSError if the disk does not take it;
    FileNotFoundError where the run folder has been removed: it is not made anew."""
    with suppress(UserError):  # of another version: not damaged
        if (damage := look_at_state(run_dir)[1]) is not None:
            json_file.report_set_aside(run_dir / FILE, damage)
    table = {"state": state, "time": time.time(), **fields}
    atomic.write_atomically(run_dir / FILE, json.dumps(table, indent=1), make_folder=False)


def move(run_dir: Path, writer: Writer, state: State, **fields: Any) -> bool:
    """Replaces state.json if the table lets this writer do so; whether it did. Progress that is not given stays."""
    before = read_state(run_dir)
    if not may_write(writer, State(before["state"]), state):
        return False
    write_state(run_dir, state, **{**progress(before), **fields})
    return True


def end(run_dir: Path, writer: Writer, how: End, reason: str = "", **fields: Any) -> bool:
    """Records how an attempt ended; whether the table let this writer do so."""
    state = ENDS[how].state
    told = {"reason": reason} if reason else {}
    return state is not None and move(run_dir, writer, state, end=how, **told, **fields)


def progress(state: dict[str, Any]) -> dict[str, Any]:
    """How far a run is, of what `read_state` gives."""
    return {key: state[key] for key in PROGRESS if key in state}
