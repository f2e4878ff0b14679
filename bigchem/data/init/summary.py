"""What `bigchem data init` chose, as tables."""

from rich.table import Table

from bigchem.base.printable import markup
from bigchem.data.init.groups import Group
from bigchem.data.init.write_recipe import Written


def column_table(group: Group) -> Table:
    """The columns of some files: what each holds, and why it is not used."""
    files = ", ".join(dict.fromkeys(file.path for file in group.files))
    records = sum(file.records for file in group.files)
    more = "" if all(file.whole for file in group.files) else " looked at; there are more"
    if skipped := sum(file.skipped for file in group.files):
        more += f"; {skipped:,} with other columns"
    if encodings := {file.options["encoding"] for file in group.files if "encoding" in file.options}:
        more += f"; not UTF-8, read as {', '.join(sorted(encodings))}"
    table = Table(title=markup(f"{files}: {records:,} records{more}"), title_justify="left")
    for name in ("column", "used", "because"):
        table.add_column(name)
    for name, column in group.columns.items():
        unused = group.proposal.unused.get(name)
        splits = group.proposal.splits
        used = "no" if unused is not None else "split" if splits and name == splits.name else column.kind
        table.add_row(markup(name), used, markup(unused or column.why))
    for name in group.files[0].lists:
        table.add_row(markup(name), "no", "lists")
    return table


def task_table(written: Written) -> Table:
    """The tasks, and what the first records gave."""
    table = Table(title="tasks, and rows of the first records", title_justify="left")
    for name in ("task", "from", "to"):
        table.add_column(name)
    for name in ("records", "rejected", "train", "valid", "test"):
        table.add_column(name, justify="right")
    about = {task.name: task for group in written.groups for task in group.proposal.tasks}
    for source, trial in zip(written.sources, written.trials, strict=True):
        names = list(source.tasks)
        counts = (trial.records, trial.rejected, *(trial.splits[split] for split in ("train", "valid", "test")))
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        ends = [sorted({getattr(about[name], end) for name in names}) for end in ("source", "target")]
        table.add_row(markup(shown), *(", ".join(end) for end in ends), *(f"{count:,}" for count in counts))
    return table
