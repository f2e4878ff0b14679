"""Log files of a run. A full disk is reported, and training continues.

bigchem/base/jsonl.py reads JSON Lines and repairs them after a power cut.
"""

import io
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from bigchem.base import jsonl
from bigchem.run.lifecycle import State
from bigchem.run.state import read_state

MAX_PENDING_BYTES = 1 << 24
"""Rows kept in memory until the disk has room; any beyond are lost."""
BAD_STEPS = "bad steps in a row"
"""In the reason of a run that fails because of them, and in the event before it rolls back or fails."""
_failing: set[str] = set()


def try_write(what: str, write: Callable[[], object]) -> bool:
    """Whether a write succeeded. An OSError is reported once, until the same `what` succeeds again."""
    try:
        write()
    except OSError as error:
        if what not in _failing:
            print(f"cannot write {what}: {error.strerror or error}; training continues", flush=True)
        _failing.add(what)
        return False
    if what in _failing:
        print(f"{what} is written again", flush=True)
    _failing.discard(what)
    return True


class Rows:
    """Appends rows to a JSONL file, from any thread. Bytes that do not fit on the disk are retried with the next row:
    no row is torn.

    complete: the file has all rows. lost: some exceeded MAX_PENDING_BYTES.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._pending, self._end_checked = path, b"", False
        self._lock = threading.Lock()
        self.lost = False

    @property
    def complete(self) -> bool:
        return not self._pending and not self.lost

    def add(self, *rows: dict[str, Any]) -> bool:
        """Appends rows, after any pending ones; whether all are written."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        with self._lock:
            fits = len(self._pending) + len(text) <= MAX_PENDING_BYTES
            self.lost |= not fits
            self._pending += text if fits else b""
            return try_write(f"{self._path.parent.name}/{self._path.name}", self._write)

    def _write(self) -> None:
        if not self._end_checked and self._pending:
            self._pending = (b"" if jsonl.ends_with_newline(self._path) else b"\n") + self._pending
            self._end_checked = True
        with self._path.open("ab", buffering=0) as file:  # unbuffered: write() returns how many bytes fitted
            while self._pending:
                self._pending = self._pending[file.write(self._pending) :]


@cache
def events_of(run_dir: Path) -> Rows:
    """A run's events.jsonl."""
    return Rows(run_dir / "events.jsonl")


def record_event(run_dir: Path, step: int, kind: str, action: str, detail: str, keys: Sequence[str] = ()) -> None:
    """Adds a row to a run's events. step: number, from 1. action: the response. keys: of the examples in the step."""
    row = {"time": time.time(), "step": step, "kind": kind, "action": action, "detail": detail, "keys": list(keys)}
    events_of(run_dir).add(row)


def has_diverged(run_dir: Path) -> bool:
    """Whether a run has failed because of bad steps in a row, rather than for a reason outside of its training."""
    state = read_state(run_dir)
    return state["state"] == State.FAILED and BAD_STEPS in str(state.get("reason"))


class Log(io.TextIOBase):
    """A rank's log. Lines that do not fit on the disk are lost; the run continues.

    rank0.times beside rank0.log has a line for each write that begins a line: its offset in bytes, and its time in
    seconds since 1970. `bigchem logs --rank all` merges by them.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._times: io.FileIO | None = None
        with suppress(OSError):
            self._times = path.with_suffix(".times").open("ab", buffering=0)
        self._begins = True

    def write(self, text: str) -> int:
        now, encoded = time.time(), text.encode(errors="backslashreplace")
        with suppress(OSError):
            written = self._file.write(encoded)
            if self._begins and self._times is not None:  # only after the write is its offset certain
                self._times.write(b"%d %.3f\n" % (self._file.tell() - written, now))
            self._begins = encoded.endswith(b"\n")
        return len(text)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        for file in (self._file, self._times):
            if file is not None:
                file.close()
        super().close()
