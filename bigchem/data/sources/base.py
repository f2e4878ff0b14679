"""What every reader of a public format shares: rows, records, and how a source is named in a TOML.

A reader has two halves. `records` walks the files and yields raw records: cheap, sequential, knows file and line.
`rows` turns one record into rows: expensive (RDKit), pure, run in parallel by the build. A record that cannot be
parsed raises RowError and is listed in rejected.jsonl; it never aborts a build by itself.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from bigchem.errors import UserError
from bigchem.strict import Section
from bigchem.tasks import TASKS


@dataclass(frozen=True)
class Row:
    """One example, without the task's prompt.

    task: a name of bigchem.tasks. molecule: SMILES of the molecule that the example is about (the captioned one, the
    product), for the leakage check; None where there is none. key: see content_key.
    """

    task: str
    source: str
    target: str
    molecule: str | None = None

    @property
    def key(self) -> str:
        """A stable hash of the content: 16 hexadecimal digits, the same on every machine and in every build."""
        text = "\x1f".join((self.task, self.source, self.target))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Record:
    """A raw record and where it stands. line counts from 1."""

    file: str
    line: int
    fields: tuple[str, ...]


class RowError(Exception):
    """This record is not a row; the text says why. Counted and listed, not fatal."""


class SourceConfig(Section):
    """One `[[sources]]` table of a build's TOML."""

    format: str
    """A reader's name: see bigchem/data/sources/__init__.py."""
    split: Literal["train", "valid", "test"]
    """Which split the rows go to."""
    path: str | None = None
    """The file, plain or .gz, relative to the TOML (parallel text: the source side)."""
    target_path: str | None = None
    """parallel_text: the target side."""
    tasks: tuple[str, ...] = ()
    """Which tasks to make rows for; empty: all that the format can give."""
    limit: Annotated[int, Field(gt=0)] | None = None
    """Read only the first records."""
    reagents: Literal["keep", "drop"] = "keep"
    """Reactions: reagents stay on the reactants' side, or are left out."""
    rows: Annotated[int, Field(gt=0)] = 1000
    """synthetic: how many rows."""
    seed: Annotated[int, Field(ge=0)] = 0
    """synthetic: which corpus."""


class Reader(Protocol):
    """A public format."""

    tasks: tuple[str, ...]
    """The tasks that the format can give rows for."""

    def records(self, source: SourceConfig) -> Iterator[Record]:
        """Raw records in file order. UserError if a file is missing or is not of this format at all."""

    def rows(self, record: Record, source: SourceConfig) -> list[Row]:
        """The rows of one record, for the tasks that the source asks for. RowError if it cannot be parsed."""


MAX_LINE = 100_000
"""Longest record in characters. Real rows end near 3,000; a longer line is a file that is not text."""


def open_text(path: str) -> Iterator[str]:
    """The lines of a UTF-8 file without their line ends, plain or gzip. Undecodable bytes become U+FFFD.

    Lines end at \\n only: captions hold characters that str.splitlines would split at.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError("no such file", str(file), "check `path` in the recipe, or add --set root=FOLDER")
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8", errors="replace", newline="\n") as lines:
            for line in lines:
                yield line.rstrip("\r\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"cannot read: {error}", str(file), "the file is truncated or not gzip; fetch it again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", str(file)) from error


def source_path(source: SourceConfig) -> str:
    """The source's file; UserError if the table names none."""
    if source.path is None:
        raise UserError(f"format '{source.format}' needs a file", "sources", "add path = ... to this [[sources]] table")
    return source.path


def line_records(source: SourceConfig) -> Iterator[Record]:
    """One record of one field per line that is not blank."""
    path = source_path(source)
    for number, line in enumerate(open_text(path), start=1):
        if line.strip():
            yield Record(path, number, (line,))


def column_records(
    source: SourceConfig, columns: tuple[str, ...], split: Callable[[str], list[str]]
) -> Iterator[Record]:
    """The named columns of each line of a table. UserError if the first line does not name them.

    A line with another number of fields than the header gives a record of no fields, which `rows` refuses.
    """
    path = source_path(source)
    lines = open_text(path)
    header = split(next(lines, ""))
    missing = [column for column in columns if column not in header]
    if missing:
        found = ", ".join(name[:40] for name in header[:6])
        raise UserError(f"no column '{missing[0]}' in the first line ({found})", path, "is `format` right?")
    places = [header.index(column) for column in columns]
    for number, line in enumerate(lines, start=2):
        if line.strip():
            fields = split(line)
            same = len(fields) == len(header)
            yield Record(path, number, tuple(fields[place] for place in places) if same else ())


def checked_fields(record: Record, count: int) -> tuple[str, ...]:
    """The record's fields. RowError if there are not `count` of them, or if they are not text."""
    if len(record.fields) != count:
        raise RowError("wrong number of columns")
    for field in record.fields:
        if len(field) > MAX_LINE:
            raise RowError(f"longer than {MAX_LINE} characters")
        if "\0" in field:
            raise RowError("NUL byte")
    return record.fields


def wanted(source: SourceConfig, rows: list[Row]) -> list[Row]:
    """Those of the rows whose task the source asks for."""
    return [row for row in rows if not source.tasks or row.task in source.tasks]


def make_row(task: str, source: str, target: str) -> Row:
    """A row with its molecule filled in. Whitespace around the texts is dropped.

    In SMILES, doubled backslashes become one: the ChEBI-20 files were escaped once too often, and `\\\\` means nothing.
    RowError for an empty side and for text that is not Unicode (JSON can spell lone surrogates).
    """
    domains = (TASKS[task].source_domain, TASKS[task].target_domain)
    texts = [text.strip() for text in (source, target)]
    for text in texts:
        if not text:
            raise RowError("empty text")
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise RowError("not valid Unicode")
    source, target = (
        text.replace("\\\\", "\\") if domain == "chemistry" else text
        for text, domain in zip(texts, domains, strict=True)
    )
    molecule = {"captioning": source, "retrosynthesis": source, "generation": target, "forward": target}.get(task)
    return Row(task, source, target, None if molecule is None else dotted(molecule))


def dotted(smiles: str) -> str:
    """SMILES proper from bigchem's: `~` joins the fragments of one compound here, but is the any-bond in SMILES."""
    return smiles.replace("~", ".")
