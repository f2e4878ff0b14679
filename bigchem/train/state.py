"""state.json of a run folder: what the run is doing, for `bigchem status`. What may follow what is in lifecycle.py."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from bigchem import strict
from bigchem.errors import UserError
from bigchem.train.lifecycle import ENDS, End, State, Writer, may_write

PROGRESS = ("step", "steps", "early")
"""What a new state takes over from the one before: how far the run is."""


def read_state(run_dir: Path) -> dict[str, Any]:
    """state.json, or {"state": "new"} where there is none."""
    try:
        table: dict[str, Any] = json.loads((run_dir / "state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {"state": State.NEW}
    if not isinstance(table, dict) or table.get("state") not in list(State):
        raise UserError(
            "not a state that this version knows", str(run_dir / "state.json"), "use the bigchem that wrote it"
        )
    return table


def write_state(run_dir: Path, state: str, **fields: Any) -> None:
    """Replaces state.json, whatever it says. OSError if the disk does not take it; FileNotFoundError where the run
    folder has been removed: it is not made anew."""
    table = {"state": state, "time": time.time(), **fields}
    strict.write_atomically(run_dir / "state.json", json.dumps(table, indent=1), make_folder=False)


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
