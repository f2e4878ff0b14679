"""Tasks as data: a record per task, as in seqio.

A record says what source and target are, which decides how they are read, which molecules leak and how predictions are
scored, and which prompts precede the source. Records are in TOML: the five of Text+Chem T5 in
`recipes/tasks/text-chem-t5.toml`, others in a data recipe. A data folder, a model and results.json carry theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bigchem.base import atomic, json_file, toml
from bigchem.base.errors import UserError, unknown
from bigchem.base.installed import resources
from bigchem.base.toml import Section

SourceDomain = Literal["chemistry", "reactants", "reaction", "text", "protein"]
TargetDomain = Literal["chemistry", "reactants", "text", "number", "label", "labels", "name", "formula", "reagents"]
Family = Literal[
    "caption", "molecule", "reaction", "procedure", "text", "number", "label", "labels", "name", "formula", "reagents"
]
CHEMISTRY = ("chemistry", "reactants", "reaction", "reagents")
"""Domains written in SMILES."""

_HEADLINES: dict[Family, str] = {
    "caption": "bleu4",
    "molecule": "exact",
    "reaction": "top1",
    "procedure": "bleu2",
    "text": "rougeL",
    "number": "rmse",
    "label": "roc_auc",
    "labels": "f1",
    "name": "exact",
    "formula": "exact",
    "reagents": "f1",
}
SOURCE = "source"
"""The field of a prompt that stands for the row's source."""
RESERVED = 1000
"""Ids below are for tasks that ship; others are hashes of the task's name."""


class TaskConfig(Section):
    """One `[tasks.NAME]` table."""

    source: SourceDomain
    """What sources are: `chemistry` (SMILES of the molecule that the row is about), `reactants` (SMILES of compounds
    joined by `.`), `reaction` (`reactants>reagents>product`), `text` or `protein`. The leak filter compares molecules,
    and the product of a reaction; of `reactants` and texts it compares nothing but the whole source."""
    target: TargetDomain
    """What targets are: `chemistry`, `reactants`, `text`, `number`, `label`, `labels` (`NAME=VALUE; NAME=VALUE`),
    `name` (IUPAC), `formula` (Hill) or `reagents` (a set of compounds joined by `.`)."""
    prompt: str | Annotated[tuple[str, ...], Field(min_length=1)] = ""
    """What the model reads before the source, or several, drawn anew for each row and epoch. `{source}` places the
    source elsewhere: `<SMILES> {source} </SMILES>`; `{COLUMN}` is another column of the row; `{{` is a brace."""
    labels: tuple[str, ...] = ()
    """label: every value that a target may have, the positive one last. labels: every NAME."""
    decimals: Annotated[int, Field(ge=0, le=12)] | None = None
    """number: digits after the point of a target. Omitted: as written."""
    family: Family | None = None
    """Which metrics apply. Omitted: by the domains; `procedure` scores text as lists of actions."""
    metrics: tuple[str, ...] = ()
    """Only these metrics of the family, or a package's own. Omitted: all of the family."""
    headline: str | None = None
    """The task's metric in short tables. Omitted: the first of `metrics`, else the family's."""
    inverse: str | None = None
    """The task that undoes this one: its model makes the round trip of predicted reactants."""
    id: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    """Pins the order of training rows. Omitted: from the name."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.labels and self.target not in ("label", "labels"):
            raise ValueError(f"labels is for target = 'label' or 'labels', not '{self.target}'")
        if len(set(self.labels)) < len(self.labels) or len(self.labels) < {"label": 2, "labels": 1}.get(self.target, 0):
            raise ValueError(f"target = '{self.target}' needs labels = [...], all different: its values or names")
        if self.decimals is not None and self.target != "number":
            raise ValueError("decimals is for target = 'number'")
        for prompt in (self.prompt,) if isinstance(self.prompt, str) else self.prompt:
            _template(prompt)
        return self


@dataclass(frozen=True)
class Task:
    """A task. Fields as in TaskConfig; prompts: with `{source}` exactly once."""

    name: str
    id: int
    source_domain: str
    target_domain: str
    prompts: tuple[str, ...]
    family: Family
    headline: str
    labels: tuple[str, ...] = ()
    decimals: int | None = None
    metrics: tuple[str, ...] = ()
    inverse: str | None = None
    spans: bool = False

    @staticmethod
    def of(name: str, record: TaskConfig) -> Task:
        """The task that a record describes."""
        family = record.family or _family(record.source, record.target)
        headline = record.headline or (record.metrics[0] if record.metrics else family)
        return Task(
            name,
            _id(name) if record.id is None else record.id,
            record.source,
            record.target,
            tuple(_template(p) for p in ((record.prompt,) if isinstance(record.prompt, str) else record.prompt)),
            family,
            _HEADLINES[family] if headline == family else headline,  # the family's name stands for its metrics
            record.labels,
            record.decimals,
            record.metrics,
            record.inverse,
        )

    @property
    def cross_domain(self) -> bool:
        """Whether the task translates between chemistry and something else."""
        return (self.source_domain in CHEMISTRY) != (self.target_domain in CHEMISTRY)

    @property
    def prompt(self) -> str:
        """The first prompt as people read it: without `{source}` where it is at the end."""
        return self.prompts[0].removesuffix("{source}")

    @property
    def only_prompt(self) -> str | None:
        """The text before every source, if that is all there is to the task's prompts."""
        before, after = _ends(self.prompts[0])
        return before if len(self.prompts) == 1 and not after and not self.fields else None

    def unprompted(self, text: str) -> str | None:
        """The source of a text that begins and ends as one of the prompts does; None if it fits none."""
        for before, after in map(_ends, self.prompts):
            if (before or after) and text.startswith(before) and text.endswith(after):
                return text[len(before) : len(text) - len(after)]
        return None

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The columns of a row that the prompts name, besides the source."""
        names = (name for prompt in self.prompts for name in _fields(prompt) if name != SOURCE)
        return tuple(dict.fromkeys(names))

    def prompted(self, source: str, fields: Mapping[str, str] | None = None, number: int = 0) -> str:
        """The encoder's input text: prompt `number` with the source and the row's other fields."""
        return self.prompts[number].format_map({**(fields or {}), SOURCE: source})

    def to_json(self) -> dict[str, Any]:
        """The record with every default filled in; `Tasks.from_json` reads it."""
        return {
            "id": self.id,
            "source": self.source_domain,
            "target": self.target_domain,
            "prompt": list(self.prompts),
            "family": self.family,
            "headline": self.headline,
            **({"labels": list(self.labels)} if self.labels else {}),
            **({"decimals": self.decimals} if self.decimals is not None else {}),
            **({"metrics": list(self.metrics)} if self.metrics else {}),
            **({"inverse": self.inverse} if self.inverse else {}),
        }


class Tasks(Mapping[str, Task]):
    """Tasks by name, in order. UserError if two share an id."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._by_id: dict[int, Task] = {}
        self._chosen: dict[tuple[str, ...], Tasks] = {}
        for task in self._tasks.values():
            if (other := self._by_id.setdefault(task.id, task)) is not task:
                raise UserError(f"tasks '{other.name}' and '{task.name}' have the id {task.id}", "tasks", "change one")

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def of_id(self, number: int) -> Task:
        """The task with this id."""
        return self._by_id[number]

    def find(self, name: str, where: str | None = None) -> Task:
        """A task by name; UserError with the nearest name for an unknown one."""
        if name not in self._tasks:
            unknown("task", name, list(self._tasks), where)
        return self._tasks[name]

    def labelled(self, name: str, where: str | None = None) -> Task:
        """`find` among the tasks that have predictions and scores."""
        return self.scored.find(name, where)

    @cached_property
    def scored(self) -> Tasks:
        """Those that have targets: all but span corruption."""
        return Tasks(task for task in self.values() if not task.spans)

    def only(self, names: Iterable[str]) -> Tasks:
        """Those with these names, in this object's order."""
        chosen = tuple(names)
        if chosen not in self._chosen:
            self._chosen[chosen] = Tasks(task for task in self.values() if task.name in chosen)
        return self._chosen[chosen]

    def to_json(self) -> dict[str, Any]:
        """Records by name; span corruption is not among them."""
        return {task.name: task.to_json() for task in self.scored.values()}

    @staticmethod
    def from_json(table: Mapping[str, Any], where: str) -> Tasks:
        """Tasks of `to_json` and span corruption. UserError if a record is not valid."""
        return merged(_records({"tasks": dict(table)}, where), base=())


TaskName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


class _File(Section):
    tasks: dict[TaskName, TaskConfig]


def read_records(path: str | Path) -> dict[str, TaskConfig]:
    """The `[tasks.NAME]` tables of a TOML file; its other tables are left alone. UserError if there are none."""
    table = toml.read_table(path)
    return _records({"tasks": table.get("tasks", {})} if "sources" in table else table, str(path))


def merged(records: Mapping[str, TaskConfig], base: Iterable[Task] | None = None) -> Tasks:
    """Tasks of records after those of base (default: those that ship), and span corruption last. A record replaces a
    task of its name and keeps its id."""
    found = {task.name: task for task in (shipped().values() if base is None else base)}
    for name, record in records.items():
        task = Task.of(name, record)
        keeps = name in found and record.id is None
        found[name] = replace(task, id=found[name].id) if keeps else task
        if name in SPANS:
            raise UserError(f"the name '{name}' is for span corruption", f"tasks.{name}", "choose another")
    return Tasks([*(task for task in found.values() if not task.spans), *SPANS.values()])


@cache
def shipped() -> Tasks:
    """The five tasks of Text+Chem T5, and span corruption."""
    return merged(read_records(resources.folder("recipes") / "tasks" / "text-chem-t5.toml"), base=())


FILE = "tasks.json"
"""The records of a run's or an exported model's tasks, in its folder."""


def write_tasks(folder: Path, tasks: Tasks) -> None:
    """Writes the tasks of a run or a model into its folder."""
    atomic.write_atomically(folder / FILE, json.dumps(tasks.to_json(), indent=1, ensure_ascii=False))


def tasks_of(folder: Path) -> Tasks:
    """The tasks of a run or a model; those that ship if its folder names none, as those of other programs."""
    file = folder / FILE
    return Tasks.from_json(json_file.load_object(file), str(file)) if file.is_file() else shipped()


SPANS: dict[str, Task] = {
    name: Task(name, number, domain, domain, ("{source}",), "text", "loss", spans=True)
    for name, number, domain in (("text_spans", 5, "text"), ("smiles_spans", 6, "chemistry"))
}
"""T5's span corruption over unlabelled corpora, as in MolT5's pre-training: no prompt, no stored target, no score."""


def _records(table: dict[str, Any], where: str) -> dict[str, TaskConfig]:
    return toml.validate(_File, table, where).tasks


def _family(source: str, target: str) -> Family:
    if target in ("number", "label", "labels", "name", "formula", "reagents"):
        return target  # type: ignore[return-value]
    if target == "text":
        return "caption" if source == "chemistry" else "text"
    return "molecule" if target == "chemistry" and source in ("text", "protein") else "reaction"


def _id(name: str) -> int:
    """An id from a name: the same wherever the task is defined, whatever others there are."""
    hashed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little") & 0x7FFFFFFF
    return hashed if hashed >= RESERVED else hashed + RESERVED


def _fields(prompt: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(prompt) if name is not None]


@cache
def _ends(template: str) -> tuple[str, str]:
    """The fixed texts before and after the source; ("", "") for a prompt with other fields."""
    if len(_fields(template)) > 1:
        return "", ""
    before, _, after = template.partition("{source}")
    return before.format(), after.format()


def _template(prompt: str) -> str:
    """The prompt with `{source}` exactly once: at the end unless it has it. ValueError for other uses of braces."""
    try:
        parsed = [part for part in Formatter().parse(prompt) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"prompt {prompt!r}: {error}: write {{{{ for a brace") from None
    for _, name, form, conversion in parsed:
        if not name or form or conversion or not name.replace("_", "").replace(" ", "").isalnum():
            raise ValueError(f"prompt {prompt!r}: {{{name}}} is no column: write {{COLUMN}}, or {{{{ for a brace")
    count = sum(name == SOURCE for _, name, _, _ in parsed)
    if count > 1:
        raise ValueError(f"prompt {prompt!r} has {{source}} {count} times")
    return prompt if count else prompt + "{source}"
