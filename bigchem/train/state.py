"""state.json of a run folder: what the run is doing, for `bigchem status`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from bigchem import strict


def write_state(run_dir: Path, state: str, **fields: Any) -> None:
    """Replaces state.json: what `bigchem status` reads. state: running, stopped, trained, finished or failed. OSError
    if the disk does not take it; FileNotFoundError where the run folder has been removed: it is not made anew."""
    text = json.dumps({"state": state, "time": time.time(), **fields}, indent=1)
    strict.write_atomically(run_dir / "state.json", text, make_folder=False)


def read_state(run_dir: Path) -> dict[str, Any]:
    """state.json, or {"state": "new"} where there is none."""
    try:
        table: dict[str, Any] = json.loads((run_dir / "state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {"state": "new"}
    return table


def progress(state: dict[str, Any]) -> dict[str, Any]:
    """How far a run is, of what `read_state` gives: what a new state takes over from the one before."""
    return {key: state[key] for key in ("step", "steps", "early") if key in state}
