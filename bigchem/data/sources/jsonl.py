"""JSON lines and arrays: `source` and `target`, Text+Chem T5's published layout, or keys that `columns` names.

`a.b` is the key b inside a, unless there is a key of that name; `a.0` is the first element of a list.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain

from bigchem.base.errors import UserError, nearest
from bigchem.base.printable import number_of
from bigchem.data.reading.json_records import MISSING, DuplicateKeyError, json_texts, lookup, parse
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.data.sources.columns import (
    chosen,
    column_names,
    label_columns,
    named_rows,
    optional_columns,
    other_columns,
    plain_columns,
)
from bigchem.data.sources.files import source_files
from bigchem.data.sources.rows import check_texts, checked_fields, longest
from bigchem.tasks import Task, Tasks

LOOKED_AT = 1000
"""Records in which a key has to occur."""


class Jsonl:
    """Any task. Unnamed keys are ignored."""

    def gives(self, task: Task) -> bool:
        return True

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: the text of the object. UserError for a label, or a key that splits the rows, that no object has."""
        split_by = () if source.group_column is None else (source.group_column,)
        needed = (*label_columns(source, tasks), *split_by)
        for path in source_files(source):
            texts = json_texts(path, longest(source), source.encoding)
            for line, text in chain(_first_with(needed, texts, path), texts):
                yield Record(path, line, (text,))

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """As in bigchem.data.sources.columns; none if `where` excludes the object."""
        limit = longest(source)
        entry = _entry(checked_fields(record, 1, limit)[0])
        if not chosen({name: _plain(lookup(entry, name)) for name in source.where}, source):
            return []
        optional, plain = optional_columns(source), plain_columns(source, tasks)
        fields = {
            role: _text(entry, key, plain=key in plain)
            for role, key in column_names(source).items()
            if key not in optional or lookup(entry, key) is not MISSING
        }
        others = {name: _plain(lookup(entry, name)) for name in other_columns(source, tasks)}
        check_texts((*fields.values(), *others.values()), limit)
        rows, group = named_rows(fields, source, tasks, others), source.group_column
        return rows if group is None else [replace(row, group=_plain(lookup(entry, group))) for row in rows]


def _first_with(needed: Iterable[str], texts: Iterator[tuple[int, str]], path: str) -> list[tuple[int, str]]:
    """The first records, up to the one by which each needed key has occurred: a key that every object lacks is
    misspelt, and would read as one without values. UserError for one that the first LOOKED_AT records lack."""
    first: list[tuple[int, str]] = []
    missing, there = dict.fromkeys(needed), dict[str, None]()
    while missing and len(first) < LOOKED_AT and (found := next(texts, None)) is not None:
        first.append(found)
        with suppress(RowError):
            entry = _entry(found[1])
            there |= dict.fromkeys(entry)
            missing = {name: None for name in missing if lookup(entry, name) is MISSING}
    if missing and there:
        name = next(iter(missing))
        what = f"no key '{name}' in its first {number_of('record', len(first))}"
        raise UserError(what, path, nearest(name, list(there)))
    return first


def _entry(line: str) -> dict[str, object]:
    try:
        entry = parse(line)
    except DuplicateKeyError as error:
        raise RowError(str(error)) from None
    except (ValueError, RecursionError):
        raise RowError("not JSON") from None
    if not isinstance(entry, dict):
        raise RowError("not a JSON object")
    return entry


def _text(entry: dict[str, object], key: str, *, plain: bool) -> str:
    """The text under a key. plain: numbers and booleans are texts too."""
    text = lookup(entry, key)
    if plain and isinstance(text, bool | int | float):
        return json.dumps(text)
    if isinstance(text, str):
        return text
    there = f"there are: {', '.join(entry)[:60]}" if text is MISSING else f"is {json.dumps(text)[:40]}"
    raise RowError(f"no text under '{key}'; {there}")


def _plain(value: object) -> str:
    """A value as `where` and labels write it."""
    return value if isinstance(value, str) else "" if value in (None, MISSING) else json.dumps(value)
