"""The records of CSV and TSV files, quoted or not.

Python's csv, pandas, polars and spreadsheets write quoted files (RFC 4180): a field that contains the separator, a
quote or a line end is in quotes, and its quotes are doubled. In an unquoted file, such as ChEBI-20's, a quote is an
ordinary character. CSV is quoted. TSV may be either; its records decide:

- a header with a name in quotes, or a field in quotes that needs them: quoted;
- a field that begins with a quote and is malformed, or is in quotes but needs none: not quoted.

Records in which no field begins with a quote read the same either way. If two others disagree, or one can be read both
ways, the file is refused, and the error names the option that decides.
"""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from bigchem.base.errors import UserError

Quoting = Literal["standard", "none"]
"""standard: RFC 4180. none: a quote is an ordinary character."""
Fields = tuple[int, list[str]]
"""A record's first line number and its fields."""


csv.field_size_limit(2**31 - 1)  # lines are bounded here, and documents are longer than csv's 131,072 characters


class Layout(NamedTuple):
    """How a table is written. splits: maximum splits, the last field keeps later separators; -1: no limit. quoting:
    None: standard if the separator is a comma, otherwise decided by the records."""

    separator: str
    splits: int = -1
    quoting: Quoting | None = None


def table_records(lines: Iterator[str], layout: Layout, limit: int, where: str) -> Iterator[Fields]:
    """The records of a table, header first, without blank lines.

    limit: longest record in characters; a longer line is a record of one field. So is one whose quotes are malformed;
    where the header has one field, it has none. UserError, naming `where`, for a file that is quoted in one line and
    not in another.
    """
    if layout.quoting == "none":
        return _plain(lines, layout, limit)
    if layout.quoting == "standard" or layout.separator == ",":
        return _quoted(_Lines(lines), layout, limit)
    return _recognised(_Lines(lines), layout, limit, where)


class _Lines:
    """Numbered lines that can be pushed back."""

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

    def closed(self, first: str, limit: int) -> list[str] | None:
        """The first line and those after it up to the one that closes its open quote; None, and nothing consumed, if
        they exceed `limit` characters."""
        taken: list[tuple[int, str]] = []
        size, opened = len(first), first.count('"') % 2
        while opened and size <= limit and (more := self.following()) is not None:
            taken.append(more)
            size += len(more[1]) + 1
            opened ^= more[1].count('"') % 2
        if opened:
            self.back(taken)
            return None
        return [first, *(line for _, line in taken)]


def _split(line: str, layout: Layout, limit: int) -> list[str]:
    return [line] if len(line) > limit else line.split(layout.separator, layout.splits)


def _plain(lines: Iterator[str], layout: Layout, limit: int) -> Iterator[Fields]:
    for number, line in enumerate(lines, start=1):
        if line and not line.isspace():
            yield number, _split(line, layout, limit)


def _quoted(lines: _Lines, layout: Layout, limit: int) -> Iterator[Fields]:
    """A quote that is not closed within `limit` characters costs only its own line."""
    width = 0
    for number, line in lines:
        if '"' in line:
            fields, taken = _quoted_record(lines, (number, line), layout.separator, limit)
            if fields is None:
                text = "\n".join(taken)
                fields = [] if width == 1 and len(text) <= limit else [text]
        elif line and not line.isspace():
            fields = _split(line, layout, limit)
        else:
            continue
        width = width or len(fields)
        yield number, fields


def _quoted_record(
    lines: _Lines, first: tuple[int, str], separator: str, limit: int
) -> tuple[list[str] | None, list[str]]:
    """The fields of the quoted record that begins with a line, or None if csv refuses it, and the record's lines.

    limit: characters within which later lines may close a quote that is open.
    """
    number, line = first
    fields, _ = _strict_fields([line], separator)
    if fields is not None:
        return fields, [line]
    taken = lines.closed(line, limit) or [line]
    fields, count = _strict_fields(taken, separator)
    lines.back(list(enumerate(taken[count:], start=number + count)))
    return fields, taken[:count]


def _strict_fields(lines: Sequence[str], separator: str) -> tuple[list[str] | None, int]:
    """The fields of the quoted record with which lines begin, and how many of the lines it has; None and all of them if
    csv refuses it."""
    records = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True)
    try:
        return next(records), records.line_num
    except csv.Error:
        return None, len(lines)


class _Verdict(NamedTuple):
    """A file's quoting, and the line that shows it."""

    quoting: Quoting
    line: int


def _recognised(lines: _Lines, layout: Layout, limit: int, where: str) -> Iterator[Fields]:
    verdict: _Verdict | None = None
    width, (separator, splits, _) = 0, layout
    opening = f'{separator}"'
    for number, line in lines:
        if '"' not in line or not (line.startswith('"') or opening in line):
            if line and not line.isspace():
                fields = line.split(separator, splits) if len(line) <= limit else [line]
                width = width or len(fields)
                yield number, fields
            continue
        quoting, fields = _judged(lines, (number, line), width, verdict, layout, limit, where)
        if quoting is not None and verdict is not None and quoting != verdict.quoting:
            raise _undecided(
                f"line {verdict.line} is {_WORDS[verdict.quoting]}, line {number} is {_WORDS[quoting]}", where
            )
        verdict = verdict or (_Verdict(quoting, number) if quoting else None)
        width = width or len(fields)
        yield number, fields


_WORDS = {"standard": "quoted", "none": "not quoted"}


def _undecided(what: str, where: str) -> UserError:
    hint = "set quoting = 'standard' if quotes are doubled inside quotes, 'none' if a quote is an ordinary character"
    return UserError(f"ambiguous quoting: {what}", where, hint)


def _judged(
    lines: _Lines, first: tuple[int, str], width: int, verdict: _Verdict | None, layout: Layout, limit: int, where: str
) -> tuple[Quoting | None, list[str]]:
    """The quoting that a record with a quote shows, if any, and its fields. width: the header's, 0 for the header."""
    number, line = first
    plain = _split(line, layout, limit)
    known = None if verdict is None else verdict.quoting
    fields, taken = _quoted_record(lines, first, layout.separator, 0 if known == "none" else limit)
    if fields is None or (width and len(fields) != width):
        if len(taken) > 1:
            lines.back(list(enumerate(taken[1:], start=number + 1)))
        return _ill_formed(fields, plain, width, known)
    if len(taken) > 1 and all(len(_split(part, layout, limit)) == width for part in taken):
        raise _undecided(f"lines {number} to {number + len(taken) - 1} read as one record or as {len(taken)}", where)
    if not width or any(_needs_quotes(field, "\n".join(taken), layout.separator) for field in fields):
        return "standard", fields
    return (None, fields) if known == "standard" else ("none", plain)


def _needs_quotes(field: str, text: str, separator: str) -> bool:
    """Whether a field of a record is in quotes and needs them."""
    if '"' in field:
        doubled = field.replace('"', '""')
        return f'"{doubled}"' in text
    return any(sign in field for sign in ("\n", "\r", separator))


def _ill_formed(
    fields: list[str] | None, plain: list[str], width: int, known: Quoting | None
) -> tuple[Quoting | None, list[str]]:
    """As _judged, for a record with malformed quotes, or with another number of fields than the header."""
    if fields is not None and len(plain) != width:
        return None, fields if known == "standard" else plain
    return "none", plain
