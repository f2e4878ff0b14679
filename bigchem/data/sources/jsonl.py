"""JSON lines: `source` and `target`, Text+Chem T5's published layout, or keys that the recipe's `columns` names."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.data.sources.columns import column_names, named_rows, optional_columns
from bigchem.data.sources.files import line_records
from bigchem.data.sources.rows import check_texts, checked_fields, longest
from bigchem.tasks import TRAINABLE_NAMES


class Jsonl:
    """Any task. Other keys than those named are ignored."""

    tasks: tuple[str, ...] = TRAINABLE_NAMES

    def records(self, source: SourceConfig) -> Iterator[Record]:
        """Fields: the line."""
        return line_records(source)

    def rows(self, record: Record, source: SourceConfig) -> list[Row]:
        """As bigchem.data.sources.columns says for the keys."""
        most = longest(source)
        entry = _entry(checked_fields(record, 1, most)[0])
        optional = optional_columns(source)
        fields = {
            role: _text(entry, key) for role, key in column_names(source).items() if key in entry or key not in optional
        }
        check_texts(fields.values(), most)
        return named_rows(fields, source)


def _entry(line: str) -> dict[str, object]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise RowError("not JSON") from None
    if not isinstance(entry, dict):
        raise RowError("not a JSON object")
    return entry


def _text(entry: dict[str, object], key: str) -> str:
    text = entry.get(key)
    if isinstance(text, str):
        return text
    there = f"is {json.dumps(text)[:40]}" if key in entry else f"there are: {', '.join(entry)[:60]}"
    raise RowError(f"no text under '{key}'; {there}")
