"""Tables from files: CSV, TSV, JSON lines and arrays, and what Hugging Face's datasets library reads."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.base.printable import printable
from bigchem.data.build.splits import NAMES
from bigchem.data.init.columns import is_record
from bigchem.data.reading.delimited import Layout, table_records
from bigchem.data.reading.json_records import json_texts, parse
from bigchem.data.reading.lines import MAX_LINE, open_text, unicode_of
from bigchem.data.reading.opening import content_name
from bigchem.data.sources.hf_datasets import splits_of
from bigchem.data.sources.sides import is_unicode

READ = 20_000
"""Records that are looked at; of longer files, the first."""
_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "tsv",
    ".rsmi": "tsv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_DATASETS = (".parquet", ".arrow")
_SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_MAX_COLUMNS = 300


@dataclass(frozen=True)
class Sample:
    """The first records of a file, or of one split of a dataset.

    format: of the source. options: fields of its `[[sources]]` table besides path, format and columns. cells: by
    column, as text. lists: columns that hold lists. whole: whether these are all records. skipped: records that are not
    objects, or have too many or too few fields. stem: the file's name without suffixes. part: the split of a dataset
    that has several.
    """

    path: str
    format: str
    options: dict[str, str]
    cells: dict[str, list[str]]
    records: int
    whole: bool
    skipped: int
    stem: str
    lists: tuple[str, ...] = ()
    part: str = ""

    @property
    def split(self) -> str | None:
        """The split that the name of the file or of the dataset's split says, if any."""
        parts = (self.part or self.stem).lower().replace("-", "_").replace(".", "_").split("_")
        found = {NAMES[part] for part in parts if part in NAMES}
        return found.pop() if len(found) == 1 else None

    @property
    def subject(self) -> str:
        """The name without the word for a split."""
        words = [word for word in self.stem.replace("-", "_").replace(".", "_").split("_") if word.lower() not in NAMES]
        return "_".join(words) or Path(self.path).resolve().parent.name


def samples(path: str) -> list[Sample]:
    """A sample of each table in a file or folder. UserError if it is none of the known kinds, or empty."""
    place = Path(path)
    if not place.exists():
        raise UserError("no such file or folder", path)
    name = place.name if place.is_dir() else content_name(path)
    suffix = Path(name).suffix.lower()
    stem = Path(name).stem
    if place.is_dir() or suffix in _DATASETS:
        parts = splits_of(path)
        found = [_of_dataset(path, stem, name, rows, several=len(parts) > 1) for name, rows in parts.items()]
    elif suffix in _FORMATS:
        found = [_of_table(path, stem, _FORMATS[suffix]) if _FORMATS[suffix] != "jsonl" else _of_json(path, stem)]
    else:
        if suffix in _SHEETS:
            raise UserError("a spreadsheet, which is not read", path, "save its sheet as CSV, with commas")
        known = ", ".join((*_FORMATS, *_DATASETS))
        raise UserError(f"cannot tell what kind of file '{name}' is", path, f"its name should end in one of {known}")
    found = [sample for sample in found if sample.records]
    if not found:
        raise UserError("no records", path)
    return found


def _of_table(path: str, stem: str, kind: str) -> Sample:
    encoding = unicode_of(path)
    header = next(iter(open_text(path, MAX_LINE, encoding)), "")
    if kind == "tsv" and "\t" not in header and header.count(",") > 0:
        kind = "csv"
    separator = "," if kind == "csv" else "\t"
    if separator not in header:
        other = next((sign for sign in "\t;|," if sign in header), None)
        if other == "\t":
            kind, separator = "tsv", "\t"
        elif other in (";", "|"):
            hint = "save it with commas (csv) or tabs (tsv), and numbers with a decimal point"
            raise UserError(f"its columns are separated by '{other}'", path, hint)
    table = table_records(open_text(path, MAX_LINE, encoding), Layout(separator), MAX_LINE, path)
    _, names = next(table, (1, []))
    fields = [found for _, found in islice(table, READ + 1)]
    kept = [found for found in fields[:READ] if len(found) == len(names)]
    if is_record(names, kept):
        what = f"its first line, '{printable(header, limit=60)}', is a record"
        raise UserError(what, path, "add a line above it with the names of the columns")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{names.count(twice)} columns are called '{twice}'", path, "rename one of them")
    whole = len(fields) <= READ
    cells = {name: [found[n] for found in kept] for n, name in enumerate(names[:_MAX_COLUMNS])}
    if encoding is None and (encoding := _western(cells)):
        cells = {name: [_as_bytes(cell).decode(encoding) for cell in column] for name, column in cells.items()}
    options = {} if encoding is None else {"encoding": encoding}
    return Sample(path, kind, options, cells, len(kept), whole, min(len(fields), READ) - len(kept), stem)


def _western(cells: Mapping[str, Sequence[str]]) -> str | None:
    """cp1252 if that reads every cell, and no character but ASCII is UTF-8. Then the bytes that are not UTF-8 are those
    of a file from Windows, not damage."""
    other = "".join(cell for column in cells.values() for cell in column if not cell.isascii())
    if all(map(is_unicode, other)) or any(not char.isascii() and is_unicode(char) for char in other):
        return None
    with suppress(UnicodeDecodeError):
        _as_bytes(other).decode("cp1252")
        return "cp1252"
    return None


def _as_bytes(cell: str) -> bytes:
    return cell.encode("utf-8", "surrogateescape")


def _of_json(path: str, stem: str) -> Sample:
    texts = [text for _, text in islice(json_texts(path, MAX_LINE), READ + 1)]
    objects, skipped = [], 0
    for text in texts[:READ]:
        try:
            value = parse(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            objects.append(value)
        else:
            skipped += 1
    cells, lists = _columns(objects)
    return Sample(path, "jsonl", {}, cells, len(objects), len(texts) <= READ, skipped, stem, lists)


def _of_dataset(path: str, stem: str, split: str, rows: Iterable[Mapping[str, Any]], *, several: bool) -> Sample:
    found = list(islice(rows, READ + 1))
    options = {} if split == "train" else {"hub_split": split}
    cells, lists = _columns(found[:READ])
    records = min(len(found), READ)
    return Sample(
        path, "datasets", options, cells, records, len(found) <= READ, 0, stem, lists, split if several else ""
    )


def _columns(objects: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The cells of each key, `a.b` for the key b inside a, and the keys that hold lists, which no column can."""
    flat = [dict(_flat(entry)) for entry in objects]
    names = list(dict.fromkeys(name for entry in flat for name in entry))[:_MAX_COLUMNS]
    lists = tuple(name for name in names if any(entry.get(name) is None for entry in flat if name in entry))
    return {name: [entry.get(name) or "" for entry in flat] for name in names if name not in lists}, lists


def _flat(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """(key, text) of an object; None for a list."""
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", None
        else:
            yield (
                f"{prefix}{key}",
                value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str),
            )
