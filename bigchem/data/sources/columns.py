"""Rows from named fields, for tables whose columns the recipe names and for fixed layouts.

- source + target: one row for each task in `tasks`. Several tasks need a task column, read through `task_names`, unless
  the source starts with a task's prompt. A prompt is always stripped.
- source alone: one row of a task with several labels, each the column of its name.
- smiles + text: tasks from molecule to text and from text to molecule.
- reaction: tasks from reactants to product and back (bigchem.data.sources.reactions).
- text alone, smiles alone: unlabelled rows, text_spans and smiles_spans.

Columns that the prompts of the source's tasks name are read as well.
"""

from collections.abc import Mapping
from dataclasses import replace

from bigchem.data.sources.base import LAYOUTS, Record, Role, Row, RowError, SourceConfig
from bigchem.data.sources.reactions import reaction_rows
from bigchem.data.sources.rows import checked_fields, longest, make_row, smiles_span, text_spans
from bigchem.data.sources.sides import labels
from bigchem.tasks import Task, Tasks

_GENERIC: Mapping[Role, str] = {"source": "source", "target": "target", "task": "task"}


def column_names(source: SourceConfig) -> Mapping[Role, str]:
    """Column by role: the source's names, or else the generic ones."""
    return source.columns or _GENERIC


def optional_columns(source: SourceConfig) -> tuple[str, ...]:
    """Columns that may be missing: task, unless the source names its columns."""
    return () if source.columns else ("task",)


def other_columns(source: SourceConfig, tasks: Tasks) -> tuple[str, ...]:
    """Columns besides those of the roles: labels, and what the prompts of the source's tasks name."""
    own = (name for task in source.chosen(tasks).values() for name in task.fields)
    return tuple(dict.fromkeys((*own, *label_columns(source, tasks))))


def label_columns(source: SourceConfig, tasks: Tasks) -> tuple[str, ...]:
    """The columns that are labels of the source's tasks."""
    if frozenset(source.columns) != {"source"}:
        return ()
    return tuple(name for task in source.chosen(tasks).values() for name in task.labels)


def plain_columns(source: SourceConfig, tasks: Tasks) -> frozenset[str]:
    """Columns whose values may be numbers or booleans instead of texts."""
    target = source.columns.get("target", "target")
    wanted = (task.target_domain in ("number", "label", "labels") for task in source.chosen(tasks).values())
    return frozenset((*other_columns(source, tasks), *((target,) if any(wanted) else ())))


def record_columns(source: SourceConfig, tasks: Tasks) -> tuple[str, ...]:
    """All columns needed of a record: those of the source's roles, of its tasks, of its `where`, and the one that
    splits it."""
    group = source.group_column
    own = (*column_names(source).values(), *other_columns(source, tasks))
    return (*own, *source.where, *([] if group is None else [group]))


def record_rows(record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
    """The rows of a record whose fields are the columns of `record_columns`; none if `where` excludes it."""
    roles, others = column_names(source), other_columns(source, tasks)
    if not record.fields:
        raise RowError("wrong number of columns, or a quote that is not closed")
    columns = record_columns(source, tasks)
    fields = checked_fields(record, len(columns), longest(source))
    after = len(roles) + len(others)
    if not chosen(dict(zip(source.where, fields[after:], strict=False)), source):
        return []
    further = dict(zip(others, fields[len(roles) :], strict=False))
    rows = named_rows(dict(zip(roles, fields, strict=False)), source, tasks, further)
    return rows if source.group_column is None else [replace(row, group=fields[-1]) for row in rows]


def chosen(values: Mapping[str, str], source: SourceConfig) -> bool:
    """Whether the source's `where` selects a record with these values in its columns."""
    return all(values[name] in ((value,) if isinstance(value, str) else value) for name, value in source.where.items())


def named_rows(
    fields: Mapping[Role, str], source: SourceConfig, tasks: Tasks, others: Mapping[str, str] | None = None
) -> list[Row]:
    """Rows from checked fields by role, for the source's tasks. others: by column. RowError if they are invalid."""
    others = others or {}
    if "reaction" in fields:
        return reaction_rows(fields["reaction"], source, tasks)
    if "target" in fields:
        return [
            labelled_row(task, fields["source"], fields["target"], source, others)
            for task in _tasks(fields, source, tasks)
        ]
    wanted = [task for task in source.chosen(tasks).values() if LAYOUTS[frozenset(fields)](task)]
    if "source" in fields:
        given = [labels({name: others[name] for name in task.labels}, task) for task in wanted]
        rows = [
            labelled_row(task, fields["source"], target.text, source, others)
            for task, target in zip(wanted, given, strict=True)
        ]
        return [replace(row, repairs=(*row.repairs, *target.repairs)) for row, target in zip(rows, given, strict=True)]
    if "smiles" not in fields:
        return text_spans(fields["text"], source.chunk_chars)
    if "text" not in fields:
        return [smiles_span(fields["smiles"], selfies=source.selfies)]
    sides = {"chemistry": fields["smiles"], "text": fields["text"]}
    return [
        make_row(
            task,
            sides[task.source_domain],
            sides[task.target_domain],
            selfies=source.selfies,
            fields=_own(task, others),
        )
        for task in wanted
    ]


def labelled_row(
    task: Task, source: str, target: str, config: SourceConfig, others: Mapping[str, str] | None = None
) -> Row:
    """The row of a task, without its prompt. RowError if a side is not valid in its domain."""
    bare = task.unprompted(source)
    return make_row(
        task, source if bare is None else bare, target, selfies=config.selfies, fields=_own(task, others or {})
    )


def _own(task: Task, others: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if empty := [name for name in task.fields if not others.get(name, "").strip()]:
        raise RowError(f"a missing text: column '{empty[0]}', which the prompt names")
    return tuple((name, others[name].strip()) for name in task.fields)


def _tasks(fields: Mapping[Role, str], source: SourceConfig, tasks: Tasks) -> list[Task]:
    """The tasks of a row with a source and a target; none for one that the source excludes."""
    wanted = source.chosen(tasks).scored
    if name := fields.get("task"):
        found = source.task_names.get(name, name)
        if found and found not in tasks.scored:
            raise RowError(f"unknown task {name[:40]!r}: map it in `task_names`")
        return [wanted[found]] if found in wanted else []
    for task in tasks.scored.values():
        if task.unprompted(fields["source"]) is not None:
            return [task] if task.name in wanted else []
    if not source.tasks:
        raise RowError("no task: neither a task column nor a prompt, and the source names no task")
    if len(wanted) > 1:
        raise RowError("no task: neither a task column nor a prompt, and the source names several tasks")
    return list(wanted.values())
