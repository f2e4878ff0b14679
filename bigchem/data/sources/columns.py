"""Rows from named fields, for tables whose columns the recipe names and for fixed layouts.

- source + target: one row. Its task is from the task column, through `task_names`; otherwise from the prompt that the
  source starts with; otherwise the only one in `tasks`. The task's prompt is always stripped.
- smiles + text: captioning and generation.
- reaction: forward and retrosynthesis (bigchem.data.sources.reactions).
- text alone, smiles alone: unlabelled rows, text_spans and smiles_spans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bigchem.data.sources.base import Record, Role, Row, RowError, SourceConfig
from bigchem.data.sources.reactions import reaction_rows
from bigchem.data.sources.rows import checked_fields, longest, make_row, smiles_span, text_spans, wanted
from bigchem.tasks import TASK_NAMES, TASKS

_GENERIC: Mapping[Role, str] = {"source": "source", "target": "target", "task": "task"}


def column_names(source: SourceConfig) -> Mapping[Role, str]:
    """Column by role: the source's names, or else the generic ones."""
    return source.columns or _GENERIC


def optional_columns(source: SourceConfig) -> tuple[str, ...]:
    """Columns that may be missing: task, unless the source names its columns."""
    return () if source.columns else ("task",)


def record_columns(source: SourceConfig) -> tuple[str, ...]:
    """All columns needed of a record: those of the source's roles, of its `where`, and the one that splits it."""
    group = source.group_column
    return (*column_names(source).values(), *source.where, *([] if group is None else [group]))


def record_rows(record: Record, source: SourceConfig) -> list[Row]:
    """The rows of a record whose fields are the columns of `record_columns`; none if `where` excludes it."""
    roles = column_names(source)
    if not record.fields:
        raise RowError("wrong number of columns, or a quote that is not closed")
    fields = checked_fields(record, len(record_columns(source)), longest(source))
    if not chosen(dict(zip(source.where, fields[len(roles) :], strict=False)), source):
        return []
    rows = named_rows(dict(zip(roles, fields, strict=False)), source)
    return rows if source.group_column is None else [replace(row, group=fields[-1]) for row in rows]


def chosen(values: Mapping[str, str], source: SourceConfig) -> bool:
    """Whether the source's `where` selects a record with these values in its columns."""
    return all(values[name] in ((value,) if isinstance(value, str) else value) for name, value in source.where.items())


def named_rows(fields: Mapping[Role, str], source: SourceConfig) -> list[Row]:
    """Rows from checked fields by role, for the source's tasks. RowError if they are invalid."""
    if "reaction" in fields:
        rows = reaction_rows(fields["reaction"], source)
    elif "source" in fields:
        task = _task(fields, source)
        rows = [labelled_row(task, fields["source"], fields["target"], source.selfies)] if task else []
    elif "smiles" not in fields:
        rows = text_spans(fields["text"], source.chunk_chars)
    elif "text" not in fields:
        rows = [smiles_span(fields["smiles"], selfies=source.selfies)]
    else:
        smiles, text = fields["smiles"], fields["text"]
        row = make_row("captioning", smiles, text, source.selfies)
        rows = [row, replace(row, task="generation", source=row.target, target=row.source)]
    return wanted(source, rows)


def labelled_row(name: str, source: str, target: str, selfies: bool) -> Row:
    """The row of a task. selfies: as in make_row. RowError if a side is not valid in its domain."""
    return make_row(name, source.removeprefix(TASKS[name].prompt), target, selfies)


def _task(fields: Mapping[Role, str], source: SourceConfig) -> str:
    """ "" for a task that the source excludes."""
    if name := fields.get("task"):
        found = source.task_names.get(name, name)
        if found and found not in TASK_NAMES:
            raise RowError(f"unknown task {name[:40]!r}: map it in `task_names`")
        return found
    for task in TASKS.values():
        if fields["source"].startswith(task.prompt):
            return task.name
    if len(source.tasks) == 1:
        return source.tasks[0]
    raise RowError("no task: neither a task column nor a prompt, and the source names no single task")
