"""What is proposed for a table: tasks and sources, and their names and prompts. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bigchem.data.init.columns import Column
from bigchem.tasks import SPANS, shipped

Cells = Mapping[str, Sequence[str]]
"""A table: the cells of each column, as text."""
Ends = tuple[str, str]
"""A task's source and target domain."""

TASK_COLUMNS = ("task", "metadata.task", "task_name", "task_type")
_GENERIC = {
    *("y", "label", "labels", "target", "value", "output", "class", "activity", "result", "score", "property"),
    *("exp", "expt", "measured", "experimental"),
}
"""Names of columns that do not say what they are: the file's name does."""


@dataclass(frozen=True)
class TaskGuess:
    """A task. record: the fields of its `[tasks.NAME]` table, or None for one that ships. why: per field."""

    name: str
    source: str
    target: str
    record: dict[str, Any] | None
    why: dict[str, str]

    @property
    def has_molecule(self) -> bool:
        """Whether each row is about a molecule, as the leak filter sees it."""
        return "chemistry" in (self.source, self.target) or self.source == "reaction"


@dataclass(frozen=True)
class SourceGuess:
    """A `[[sources]]` table without file and split. columns: by role. task_names: by the values of the task column."""

    columns: dict[str, str]
    tasks: tuple[str, ...]
    task_names: dict[str, str] = field(default_factory=dict)


class Found:
    """What has been proposed so far. in_prompts: columns that prompts name. reasons: why columns are not used."""

    def __init__(self, columns: Mapping[str, Column], cells: Cells, stem: str) -> None:
        self.columns, self.cells, self.stem = columns, cells, stem
        self.tasks: dict[str, TaskGuess] = {}
        self.sources: list[SourceGuess] = []
        self.in_prompts: set[str] = set()
        self.reasons: dict[str, str] = {}

    def of_kind(self, *kinds: str) -> list[Column]:
        """The columns of these kinds, in the file's order."""
        return [column for column in self.columns.values() if column.kind in kinds]

    def add(self, task: TaskGuess, source: Column | None = None, target: Column | None = None) -> str:
        """A task, under a new name if its own is taken, and the source of its rows, unless others share it."""
        taken = {*self.tasks, *(() if task.record is None else shipped())}
        name, number = task.name, 2
        while name in taken:
            name, number = f"{task.name}_{number}", number + 1
        self.tasks[name] = replace(task, name=name)
        if source is not None:
            columns = {"source": source.name} if target is None else {"source": source.name, "target": target.name}
            self.sources.append(SourceGuess(columns, (name,)))
        return name

    def add_shipped(self, columns: Mapping[str, Column], *ends: Ends) -> None:
        """The tasks that ship with these ends, all from one source with these columns by role."""
        self._add_known(columns, {name: one for one in ends if (name := shipped_with(one))})

    def add_spans(self, role: str, column: Column) -> None:
        """Span corruption of a column."""
        domain = "chemistry" if column.kind == "smiles" else "text"
        names = {name: (domain, domain) for name, task in SPANS.items() if task.source_domain == domain}
        self._add_known({role: column}, names)

    def _add_known(self, columns: Mapping[str, Column], tasks: Mapping[str, Ends]) -> None:
        why = {column.name: f"{column.name}: {column.why}" for column in columns.values()}
        for name, ends in tasks.items():
            self.add(TaskGuess(name, *ends, None, why))
        self.sources.append(SourceGuess({role: column.name for role, column in columns.items()}, tuple(tasks)))


def shipped_with(ends: Ends) -> str | None:
    """The task that ships with these ends, if they decide: of two texts there are many tasks."""
    found = {(task.source_domain, task.target_domain): name for name, task in shipped().scored.items()}
    return None if ends == ("text", "text") else found.get(ends)


def ends_of(left: Column, right: Column) -> Ends:
    """Source and target domain. SMILES of which most have several compounds, beside others, are reactants."""
    source = {"smiles": "chemistry", "reaction": "reaction", "protein": "protein"}.get(left.kind, "text")
    targets = {"smiles": "chemistry", "number": "number", "label": "label", "name": "name", "formula": "formula"}
    target = targets.get(right.kind, "text")
    if (source, target) == ("reaction", "chemistry"):
        return "reaction", "reagents"
    if (source, target) == ("chemistry", "chemistry"):
        if left.several >= 0.5 > right.several:
            return "reactants", "chemistry"
        if right.several >= 0.3 > left.several:
            return "chemistry", "reactants"
    return source, target


def task(name: str, source: Column, target: Column, ends: Ends | None = None, prompt: str | None = None) -> TaskGuess:
    """A task of one's own from a column to another."""
    left, right = ends or ends_of(source, target)
    asked = prompt or prompt_for(source, target, words(target.name))
    record: dict[str, Any] = {"source": left, "target": right, "prompt": asked}
    why = {"source": f"{source.name}: {source.why}", "target": f"{target.name}: {target.why}"}
    if right == "number" and target.decimals is not None:
        record["decimals"] = target.decimals
        why["decimals"] = "enough for the spread of the numbers, and for small ones"
    if right == "label":
        record["labels"] = list(target.values)
    return TaskGuess(name, left, right, record, why)


def prompt_for(source: Column, target: Column, what: str) -> str:
    """The prompt of a task, in English. what: is asked for."""
    about = {"smiles": "molecule", "reaction": "reaction", "protein": "protein"}.get(source.kind, "text")
    asked = {
        "number": f"Predict the {what} of the {about}: ",
        "label": f"Predict {what} of the {about}: ",
        "name": f"Write the name ({what}) of the {about}: ",
        "formula": f"Write the molecular formula of the {about}: ",
        "text": f"Write the {what} of the {about}: ",
        "smiles": f"Write in SMILES {what} of the {about}: ",
    }
    return asked.get(target.kind, f"Write {what} of the {about}: ").replace("{", "{{").replace("}", "}}")


def called(column: str, stem: str) -> str:
    """What a column is of, for its task's name: `y` alone says nothing."""
    if column.lower() not in _GENERIC:
        return column
    return f"{stem} {column}" if len(column) > 1 else stem


def slug(text: str) -> str:
    """A task's name from a column's, a file's or another task's."""
    name = re.sub(r"[^A-Za-z0-9-]+", "_", text.strip()).strip("_")[:60]
    return name if name[:1].isalpha() else f"task_{name}".rstrip("_")


def words(name: str) -> str:
    """A name as words: measured_log_solubility, measuredLogSolubility."""
    return " ".join(re.sub(r"(?<=[a-z][a-z])(?=[A-Z])", " ", re.sub(r"[_\W]+", " ", name)).split())
