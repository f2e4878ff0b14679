"""Lines of text from local files and from URLs, and the records of tables that are made of lines."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO, cast
from urllib.parse import urlsplit

from bigchem.data.remote import install_hint, is_url
from bigchem.data.sources.base import Record, SourceConfig
from bigchem.data.sources.rows import MAX_LINE, longest
from bigchem.errors import UserError


def open_text(path: str, most: int = MAX_LINE) -> Iterator[str]:
    """The lines of a UTF-8 file or URL without their line ends, plain or, by name, gzip.

    Bytes that are not UTF-8 become lone surrogates, by which rows are refused. Lines end at \\n only: captions hold
    characters that str.splitlines would split at.
    A line of more than `most` characters is cut to `most` + 2 at most, so that one without an end needs no memory.
    UserError if there is no such file or it cannot be read.
    """
    try:
        with _opened(path) as lines:
            read = partial(lines.readline, most + 2)  # still too long without a byte order mark, which Excel writes
            line = read().removeprefix("\ufeff")
            while line:
                yield line.rstrip("\r\n")
                while len(line) > most and not line.endswith("\n") and (line := read()):
                    pass
                line = read()
    except UserError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"cannot read: {error}", path, "the file is truncated or not gzip; fetch it again") from error
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror or one_line(error)}", path) from error
    except Exception as error:  # what a protocol's own library raises: no common class
        if not is_url(path):
            raise
        raise UserError(f"cannot read: {one_line(error)}", path) from error


def one_line(error: Exception) -> str:
    """The first line of an error's text, or its class where it has none; at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if not is_url(path):
        if not Path(path).is_file():
            raise UserError("no such file", path, "check `path` in the recipe, or add --set root=FOLDER")
        opener = gzip.open if path.endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            yield cast(TextIO, lines)
        return
    name = urlsplit(path.split("::", maxsplit=1)[0]).path or path
    keep, raw = _remote(path)  # an archive closes its file when nobody holds `keep` any more
    with raw:
        unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if name.endswith(".gz") else raw
        with io.TextIOWrapper(unpacked, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            yield lines
    del keep


def _remote(path: str) -> tuple[object, BinaryIO]:
    import fsspec  # heavy, and local files do without

    try:
        opened = fsspec.open(path, "rb")
        return opened, cast(BinaryIO, opened.open())
    except ImportError as error:
        raise UserError(f"cannot open: {one_line(error)}", path, install_hint(path)) from error
    except FileNotFoundError as error:
        raise UserError("no such file, or no answer from there", path, "check the URL in the recipe") from error
    except Exception as error:
        raise UserError(f"cannot open: {one_line(error)}", path, "check the URL and the access to it") from error


def source_path(source: SourceConfig) -> str:
    """The source's file; UserError if the table names none."""
    if source.path is None:
        raise UserError(f"format '{source.format}' needs a file", "sources", "add path = ... to this [[sources]] table")
    return source.path


def line_records(source: SourceConfig) -> Iterator[Record]:
    """One record of one field per line that is not blank."""
    path = source_path(source)
    for number, line in enumerate(open_text(path, longest(source)), start=1):
        if line.strip():
            yield Record(path, number, (line,))


Split = Callable[[Iterator[str], int], Iterator[tuple[int, list[str]]]]
"""How a table is written: from lines and the longest one allowed, (number of the first line, fields) of each record."""


def tabs(lines: Iterator[str], most: int, splits: int = -1) -> Iterator[tuple[int, list[str]]]:
    """Tab-separated, no quoting: a quote is a character. splits: the last field keeps the tabs after so many."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, [line] if len(line) > most else line.split("\t", splits)


def commas(lines: Iterator[str], most: int) -> Iterator[tuple[int, list[str]]]:
    """Comma-separated with standard quoting (RFC 4180), line ends inside quotes included.

    A quote that nothing closes within `most` characters costs its own line, which becomes one field, and no other.
    """
    numbered = enumerate(lines, start=1)
    ahead: deque[tuple[int, str]] = deque()

    def following() -> tuple[int, str] | None:
        return ahead.popleft() if ahead else next(numbered, None)

    while (first := following()) is not None:
        taken, size, opened = [first], len(first[1]), first[1].count('"') % 2
        while opened and size <= most and (more := following()) is not None:
            taken.append(more)
            size += len(more[1]) + 1
            opened ^= more[1].count('"') % 2
        if opened:
            ahead.extendleft(reversed(taken[1:]))
            del taken[1:]
        if text := "\n".join(line for _, line in taken).strip("\n"):
            yield first[0], _csv_fields(text)


def _csv_fields(text: str) -> list[str]:
    """The fields of one record; one that csv refuses is a single field, which `rows` refuses in turn."""
    try:
        return next(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        return [text]


def column_records(
    source: SourceConfig, split: Split, columns: Sequence[str], optional: Collection[str] = ()
) -> Iterator[Record]:
    """The named columns of each record of a table; "" for an optional one that is not there.

    UserError if the first line does not name the others. A record with another number of fields than the header gives
    one of no fields, or of the field that is too long, which `rows` refuses.
    """
    path, most = source_path(source), longest(source)
    table = split(open_text(path, most), most)
    _, header = next(table, (1, []))
    places = [column_place(path, header, column, column in optional) for column in columns]
    for number, fields in table:
        if len(fields) == len(header):
            yield Record(path, number, tuple("" if place is None else fields[place] for place in places))
        else:
            yield Record(path, number, tuple(field for field in fields if len(field) > most))


def column_place(where: str, header: Sequence[str], column: str, optional: bool = False) -> int | None:
    """Where a column stands; None for an optional one that is not there. UserError that lists the columns there are."""
    if header.count(column) > 1:
        raise UserError(f"{header.count(column)} columns are called '{column}'", where, "rename one of them")
    if column in header:
        return header.index(column)
    if optional:
        return None
    found = ", ".join(name[:40] for name in header[:12]) or "none"
    more = f" and {len(header) - 12} more" if len(header) > 12 else ""
    raise UserError(f"no column '{column}'; there are: {found}{more}", where, "is `format` right, and `columns`?")
