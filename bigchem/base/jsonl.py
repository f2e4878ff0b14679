"""Reads and repairs JSON Lines of a run folder, which run/log_files.py writes.

A kill tears the last line; a power cut leaves NUL bytes, or half of an old page. Intact rows before and after the
damage count; damaged lines are skipped and reported.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bigchem.base import atomic, json_file
from bigchem.base.json_file import RecordError

MAX_BYTES = 1 << 26
"""Length of a line: a ledger's row for a step of a million examples has half of it."""
BLOCK = 8192
NAMED = 3
"""Damaged lines that a message names."""

Needs = Mapping[str, type]
"""Required keys of a row, with their values' types; int counts as float."""
NOTHING: Needs = {}


class Line(NamedTuple):
    """A line that is not blank. number: from 1. raw: its bytes. row: its object, or None if damaged. why: the
    damage."""

    number: int
    raw: bytes
    row: dict[str, Any] | None
    why: str = ""


@dataclass(frozen=True)
class Contents:
    """A file's content. rows: the intact ones. bad: the damaged lines, `line 3: not JSON: ...`."""

    rows: list[dict[str, Any]]
    bad: list[str]

    @property
    def damage(self) -> str | None:
        """A summary of the damaged lines; None if there are none."""
        return None if not self.bad else damage_summary(self.bad)


def damage_summary(bad: list[str]) -> str:
    """A summary of damaged lines."""
    if len(bad) == 1:
        return f"damaged, skipped: {bad[0]}"
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return f"{len(bad)} damaged lines skipped: {'; '.join(bad[:NAMED])}{more}"


def read(path: Path, needs: Needs = NOTHING) -> Contents:
    """A whole file; empty if it does not exist. OSError if it cannot be read."""
    rows, bad = [], []
    for line in lines(path, needs):
        if line.row is None:
            bad.append(f"line {line.number}: {line.why}")
        else:
            rows.append(line.row)
    return Contents(rows, bad)


def last(path: Path, needs: Needs = NOTHING) -> tuple[dict[str, Any], str | None]:
    """The last intact row, read from the file's end ({} if there is none, or no file), and the damage after it. A last
    line without a newline is not damage: it may be in the middle of being written."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return {}, None
    length = BLOCK
    with path.open("rb") as file:
        while True:
            file.seek(max(0, size - length))
            block = file.read(length)
            whole, why = block if length >= size else block[block.find(b"\n") + 1 :], None
            for number, raw in enumerate(reversed(whole.split(b"\n"))):
                line = parsed(0, raw + b"\n", needs)
                if line is not None and line.row is not None:
                    return line.row, why
                if line is not None and (number or b"\0" in raw):
                    why = f"damaged at its end: {line.why}"
            if length >= min(size, MAX_BYTES):
                return {}, why
            length *= 8


def lines(path: Path, needs: Needs = NOTHING) -> Iterator[Line]:
    """The lines of a file that are not blank; none if it does not exist."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        number = 0
        while raw := file.readline(MAX_BYTES):
            number += 1
            if not raw.endswith(b"\n") and len(raw) == MAX_BYTES:
                while (rest := file.readline(MAX_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield Line(number, raw, None, f"longer than {MAX_BYTES:,} bytes")
            elif (line := parsed(number, raw, needs)) is not None:
                yield line


def parsed(number: int, raw: bytes, needs: Needs) -> Line | None:
    """A line; None if blank. NUL bytes before a row are the remains of an earlier row after a power cut."""
    content = raw.strip(b"\0 \t\r\n")
    if not content:
        return Line(number, raw, None, "NUL bytes") if b"\0" in raw else None
    try:
        row = json_file.parse(content, "")
    except RecordError as error:
        return Line(number, raw, None, "torn" if not raw.endswith(b"\n") else error.what)
    if not isinstance(row, dict):
        return Line(number, raw, None, "not a JSON object")
    for key, kind in needs.items():
        if not _is(row.get(key), kind):
            return Line(number, raw, None, f"'{key}' is missing" if key not in row else f"'{key}' has a wrong type")
    return Line(number, raw, row)


def repair(path: Path, wanted: Callable[[dict[str, Any]], bool], needs: Needs = NOTHING) -> list[Line]:
    """Keeps only a file's intact, wanted rows; returns the damaged lines. A damaged file is first copied aside, and
    reported on stdout."""
    retained, bad = bytearray(), []
    for line in lines(path, needs):
        if line.row is None:
            bad.append(line)
        elif wanted(line.row):
            retained += line.raw.strip(b"\0 \t\r\n") + b"\n"
    if bad:
        json_file.report_set_aside(path, damage_summary([f"line {line.number}: {line.why}" for line in bad]))
    if bad or len(retained) != path.stat().st_size:
        atomic.write_atomically(path, bytes(retained))
    return bad


def ends_with_newline(path: Path) -> bool:
    """Whether a file is empty, absent, or ends with a complete line; otherwise the next row must begin a new line."""
    if not path.is_file():
        return True
    try:
        with path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"
    except OSError:  # an empty file has no last byte
        return True


def _is(value: object, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)
