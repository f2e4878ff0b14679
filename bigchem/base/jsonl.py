"""JSON Lines of a run folder: read and mended. Written by run/log_files.py.

A kill tears the last line; a power cut leaves NUL bytes, or half of an old page. Whole rows before and after such
damage count; what is damaged is left out, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bigchem.base import atomic, json_file
from bigchem.base.json_file import RecordError

MOST_BYTES = 1 << 26
"""Of one line: a ledger's row of a step of a million examples has half of it."""
BLOCK = 8192
NAMED = 3
"""Damaged lines that a message names."""

Needs = Mapping[str, type]
"""Keys that each row has to have, with the type of their values; int counts as float."""
NOTHING: Needs = {}


class Line(NamedTuple):
    """A line that is not blank. number: from 1. raw: as in the file. row: its object; None where it is damaged, and
    why says how."""

    number: int
    raw: bytes
    row: dict[str, Any] | None
    why: str = ""


@dataclass(frozen=True)
class Contents:
    """What a file holds. rows: the whole ones. bad: the damaged lines, `line 3: not JSON: ...`."""

    rows: list[dict[str, Any]]
    bad: list[str]

    @property
    def damage(self) -> str | None:
        """The damaged lines in a few words; None where there are none."""
        return None if not self.bad else damage_summary(self.bad)


def damage_summary(bad: list[str]) -> str:
    """Damaged lines in a few words."""
    if len(bad) == 1:
        return f"damaged, left out: {bad[0]}"
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return f"{len(bad)} damaged lines left out: {'; '.join(bad[:NAMED])}{more}"


def read(path: Path, needs: Needs = NOTHING) -> Contents:
    """All of a file; nothing where there is none. OSError if it cannot be read."""
    rows, bad = [], []
    for line in lines(path, needs):
        if line.row is None:
            bad.append(f"line {line.number}: {line.why}")
        else:
            rows.append(line.row)
    return Contents(rows, bad)


def last(path: Path, needs: Needs = NOTHING) -> tuple[dict[str, Any], str | None]:
    """The last whole row, read from the file's end, {} where there is none, or no file; and what is damaged behind it.
    A last line without an end may be one that is being written."""
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
            if length >= min(size, MOST_BYTES):
                return {}, why
            length *= 8


def lines(path: Path, needs: Needs = NOTHING) -> Iterator[Line]:
    """The lines of a file that are not blank, one at a time; none where there is no file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        number = 0
        while raw := file.readline(MOST_BYTES):
            number += 1
            if not raw.endswith(b"\n") and len(raw) == MOST_BYTES:
                while (rest := file.readline(MOST_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield Line(number, raw, None, f"longer than {MOST_BYTES:,} bytes")
            elif (line := parsed(number, raw, needs)) is not None:
                yield line


def parsed(number: int, raw: bytes, needs: Needs) -> Line | None:
    """A line; None for a blank one. NUL bytes before a row are what a power cut left of the row before it."""
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
            return Line(number, raw, None, f"'{key}' is missing" if key not in row else f"'{key}' is of a wrong type")
    return Line(number, raw, row)


def repair(path: Path, wanted: Callable[[dict[str, Any]], bool], needs: Needs = NOTHING) -> list[Line]:
    """Leaves only the whole rows that are wanted in a file; its damaged lines. A file with such is copied aside first,
    and a line on stdout says so."""
    kept, bad = bytearray(), []
    for line in lines(path, needs):
        if line.row is None:
            bad.append(line)
        elif wanted(line.row):
            kept += line.raw.strip(b"\0 \t\r\n") + b"\n"
    if bad:
        json_file.report_set_aside(path, damage_summary([f"line {line.number}: {line.why}" for line in bad]))
    if bad or len(kept) != path.stat().st_size:
        atomic.write_atomically(path, bytes(kept))
    return bad


def ends_with_newline(path: Path) -> bool:
    """Whether a file is empty, absent, or ends with a whole line. After a torn one a row needs a line of its own."""
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
