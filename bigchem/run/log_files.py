"""Files that a run writes beside its checkpoints, on a disk that may be full: that is told, and training goes on.

JSON Lines are read, and mended after a power cut, by bigchem/base/jsonl.py.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bigchem.base import jsonl

KEPT = 1 << 24
"""Bytes of rows that wait for room; those beyond are lost."""
_failing: set[str] = set()


def try_write(what: str, write: Callable[[], object]) -> bool:
    """Whether a write succeeded; an OSError is told once, until the same `what` succeeds again."""
    try:
        write()
    except OSError as error:
        if what not in _failing:
            print(f"cannot write {what}: {error.strerror or error}; training goes on", flush=True)
        _failing.add(what)
        return False
    if what in _failing:
        print(f"{what} is written again", flush=True)
    _failing.discard(what)
    return True


class Rows:
    """Appends rows to a JSONL file. What the disk does not take is kept, and tried again with the next row: no row is
    torn. complete: the file has all rows. lost: some were too many to keep."""

    def __init__(self, path: Path) -> None:
        self._path, self._waiting, self._looked = path, b"", False
        self.lost = False

    @property
    def complete(self) -> bool:
        return not self._waiting and not self.lost

    def add(self, *rows: dict[str, Any]) -> bool:
        """Appends, first what waits; whether all is written."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        fits = len(self._waiting) + len(text) <= KEPT
        self.lost |= not fits
        self._waiting += text if fits else b""
        return try_write(f"{self._path.parent.name}/{self._path.name}", self._write)

    def _write(self) -> None:
        if not self._looked and self._waiting:
            self._waiting = (b"" if jsonl.ends_with_newline(self._path) else b"\n") + self._waiting
            self._looked = True
        with self._path.open("ab", buffering=0) as file:  # unbuffered: it says how much of a row there was room for
            while self._waiting:
                self._waiting = self._waiting[file.write(self._waiting) :]


class Log(io.TextIOBase):
    """A rank's log, appended to. What the disk does not take is lost: a line is not worth the run.

    Beside rank0.log, rank0.times has a line for each write that begins a line: its offset in bytes, and the time in
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
            if self._begins and self._times is not None:  # after the write: only then is its offset certain
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
