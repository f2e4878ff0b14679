"""The records of CSV and TSV files, quoted or not.

A quoted file is one that Python's csv, pandas, polars or a spreadsheet wrote (RFC 4180): a field that holds the
separator, a quote or a line end stands in quotes, and its quotes are doubled. In a file that is not quoted a quote is a
character like any other, as in ChEBI-20. CSV is quoted. TSV comes both ways, and is told by its records:

- a header with a name in quotes, or a field that stands in quotes and needs them: quoted;
- a field that begins with a quote and is ill formed, or stands in quotes and needs none: not quoted.

Records of which no field begins with a quote read the same either way. Where two others disagree, or one can be read
both ways, the file is refused with the option that decides.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple

from bigchem.base.errors import UserError

Quoting = Literal["standard", "none"]
"""standard: RFC 4180. none: a quote is a character."""
Fields = tuple[int, list[str]]
"""Number of the first line of a record, and its fields."""


class Layout(NamedTuple):
    """How a table is written. splits: the last field keeps the separators after so many; -1: all split. quoting: None:
    by its records, or standard where the separator is a comma."""

    separator: str
    splits: int = -1
    quoting: Quoting | None = None


def table_records(lines: Iterator[str], layout: Layout, most: int, where: str) -> Iterator[Fields]:
    """The records of a table, header first, without blank lines.

    most: longest record in characters; a longer line is a record of one field. UserError, naming `where`, for a file
    that is quoted in one line and not in another.
    """
    if layout.quoting == "none":
        return _plain(lines, layout, most)
    if layout.quoting == "standard" or layout.separator == ",":
        return _quoted(_Lines(lines), layout, most)
    return _recognised(_Lines(lines), layout, most, where)


class _Lines:
    """Numbered lines, of which some can be given back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._numbered = enumerate(lines, start=1)
        self._ahead: deque[tuple[int, str]] = deque()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        more = True
        while more or self._ahead:
            while self._ahead:
                yield self._ahead.popleft()
            more = False
            for numbered in self._numbered:
                yield numbered
                if self._ahead:
                    more = True
                    break

    def following(self) -> tuple[int, str] | None:
        return self._ahead.popleft() if self._ahead else next(self._numbered, None)

    def back(self, lines: list[tuple[int, str]]) -> None:
        self._ahead.extendleft(reversed(lines))

    def closed(self, first: str, most: int) -> list[str] | None:
        """The first line and those after it up to where its open quote is closed; None, and nothing taken, if that
        takes more than `most` characters."""
        taken: list[tuple[int, str]] = []
        size, opened = len(first), first.count('"') % 2
        while opened and size <= most and (more := self.following()) is not None:
            taken.append(more)
            size += len(more[1]) + 1
            opened ^= more[1].count('"') % 2
        if opened:
            self.back(taken)
            return None
        return [first, *(line for _, line in taken)]


def _split(line: str, layout: Layout, most: int) -> list[str]:
    return [line] if len(line) > most else line.split(layout.separator, layout.splits)


def _plain(lines: Iterator[str], layout: Layout, most: int) -> Iterator[Fields]:
    for number, line in enumerate(lines, start=1):
        if line and not line.isspace():
            yield number, _split(line, layout, most)


def _quoted(lines: _Lines, layout: Layout, most: int) -> Iterator[Fields]:
    """A quote that nothing closes within `most` characters costs its own line alone, which becomes one field."""
    for number, line in lines:
        if '"' not in line:
            if line and not line.isspace():
                yield number, _split(line, layout, most)
        else:
            fields = _strict_fields(line, layout.separator)
            if fields is None:
                text = "\n".join(lines.closed(line, most) or [line])
                fields = _strict_fields(text, layout.separator) or [text]
            yield number, fields


def _strict_fields(text: str, separator: str) -> list[str] | None:
    """The fields of a quoted record; None for one that csv refuses."""
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error:
        return None


class _Verdict(NamedTuple):
    """What a line says of its file."""

    quoting: Quoting
    line: int


def _recognised(lines: _Lines, layout: Layout, most: int, where: str) -> Iterator[Fields]:
    verdict: _Verdict | None = None
    width, (separator, splits, _) = 0, layout
    opening = f'{separator}"'
    for number, line in lines:
        if '"' not in line or not (line.startswith('"') or opening in line):
            if line and not line.isspace():
                fields = line.split(separator, splits) if len(line) <= most else [line]
                width = width or len(fields)
                yield number, fields
            continue
        said, fields = _judged(lines, (number, line), width, verdict, layout, most, where)
        if said is not None and verdict is not None and said != verdict.quoting:
            raise _undecided(
                f"line {verdict.line} is {_WORDS[verdict.quoting]}, line {number} is {_WORDS[said]}", where
            )
        verdict = verdict or (_Verdict(said, number) if said else None)
        width = width or len(fields)
        yield number, fields


_WORDS = {"standard": "quoted", "none": "not quoted"}


def _undecided(what: str, where: str) -> UserError:
    hint = "set quoting = 'standard' where quotes are doubled inside quotes, 'none' where a quote is a character"
    return UserError(f"is it quoted? {what}", where, hint)


def _judged(
    lines: _Lines, first: tuple[int, str], width: int, verdict: _Verdict | None, layout: Layout, most: int, where: str
) -> tuple[Quoting | None, list[str]]:
    """What a record with a quote in it says, and its fields. width: of the header, 0 for the header itself."""
    number, line = first
    plain = _split(line, layout, most)
    known = None if verdict is None else verdict.quoting
    taken, fields = [line], _strict_fields(line, layout.separator)
    if fields is None and known != "none":  # a quote that is left open, which a line further down may close
        taken = lines.closed(line, most) or [line]
        fields = _strict_fields("\n".join(taken), layout.separator)
    if fields is None or (width and len(fields) != width):
        if len(taken) > 1:
            lines.back(list(enumerate(taken[1:], start=number + 1)))
        return _ill_formed(fields, plain, width, known, layout)
    if len(taken) > 1 and all(len(_split(one, layout, most)) == width for one in taken):
        raise _undecided(f"lines {number} to {number + len(taken) - 1} read as one record and as {len(taken)}", where)
    if not width or any(_needs_quotes(field, "\n".join(taken), layout.separator) for field in fields):
        return "standard", fields
    return (None, fields) if known == "standard" else ("none", plain)


def _needs_quotes(field: str, text: str, separator: str) -> bool:
    """Whether a field of a record stands in quotes that it could not do without."""
    if '"' in field:
        doubled = field.replace('"', '""')
        return f'"{doubled}"' in text
    return any(sign in field for sign in ("\n", "\r", separator))


def _ill_formed(
    fields: list[str] | None, plain: list[str], width: int, known: Quoting | None, layout: Layout
) -> tuple[Quoting | None, list[str]]:
    """Of a record that is not quoted as it should be, or has another number of fields than the header."""
    if fields is not None and len(plain) != width:
        return None, fields if known == "standard" else plain
    return "none", plain
