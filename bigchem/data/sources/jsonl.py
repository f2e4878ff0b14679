"""JSON lines with `source` and `target`: Text+Chem T5's published layout, and the generic one.

The task of a line is its "task" key; else the prompt that its source starts with; else the one task that the source's
`tasks` names. Whatever says it, the task's prompt is stripped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from bigchem.data.sources.base import (
    Record,
    Row,
    RowError,
    SourceConfig,
    checked_fields,
    dotted,
    line_records,
    make_row,
    wanted,
)
from bigchem.data.sources.molecules import parse
from bigchem.tasks import TASK_NAMES, TASKS


class Jsonl:
    """Any task. Other keys than `source`, `target` and `task` are ignored."""

    tasks: tuple[str, ...] = TASK_NAMES

    def records(self, source: SourceConfig) -> Iterator[Record]:
        """Fields: the line."""
        return line_records(source)

    def rows(self, record: Record, source: SourceConfig) -> list[Row]:
        """One row. RowError if a side that should be SMILES cannot be read by RDKit."""
        entry = _entry(checked_fields(record, 1)[0])
        task = TASKS[_task(entry, source)]
        row = make_row(task.name, entry["source"].removeprefix(task.prompt), entry["target"])
        for domain, text in ((task.source_domain, row.source), (task.target_domain, row.target)):
            if domain == "chemistry":
                parse(dotted(text))
        return wanted(source, [row])


def _entry(line: str) -> dict[str, str]:
    """The line's strings by key."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise RowError("not JSON") from None
    if not isinstance(entry, dict):
        raise RowError("not a JSON object")
    for key in ("source", "target"):
        if not isinstance(entry.get(key), str):
            raise RowError(f"no text under '{key}'")
        if "\0" in entry[key]:
            raise RowError("NUL byte")
    return entry


def _task(entry: dict[str, str], source: SourceConfig) -> str:
    if "task" in entry:
        if entry["task"] not in TASK_NAMES:
            raise RowError(f"unknown task {str(entry['task'])[:40]!r}")
        return entry["task"]
    for task in TASKS.values():
        if entry["source"].startswith(task.prompt):
            return task.name
    if len(source.tasks) == 1:
        return source.tasks[0]
    raise RowError("no task: neither a 'task' key nor a prompt, and the source names no single task")
