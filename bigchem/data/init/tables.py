"""From a table's columns to tasks and sources. Pure.

- A column of tasks, as in SMolInstruct and Mol-Instructions: each value is looked at alone.
- A pair of columns that names its sides (source and target, input and output, ...): one task.
- Otherwise what the table is about (a reaction, a molecule, a protein, in this order) and a task for each other column:
  captions, names and formulas in both directions, numbers, labels, yes-or-no labels together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bigchem.data.init.columns import SURE, Column, examine, is_missing
from bigchem.data.init.computed import computed_by
from bigchem.tasks import shipped

Cells = Mapping[str, Sequence[str]]
"""A table: the cells of each column, as text."""

_PAIRS = (
    *(("raw_input", "raw_output"), ("source", "target"), ("src", "tgt"), ("input", "output"), ("question", "answer")),
    *(("prompt", "completion"), ("reactants", "products"), ("reactants", "product"), ("precursors", "product")),
)
"""Names of a source's and a target's column, in the order of preference: raw texts before those in sentences."""
_TASK_COLUMNS = ("task", "metadata.task", "task_name", "task_type")
_ALIASES = {
    **dict.fromkeys(("forward_synthesis", "forward_reaction_prediction"), "forward"),
    **dict.fromkeys(("molecule_captioning", "molecular_description_generation"), "captioning"),
    **dict.fromkeys(("molecule_generation", "description_guided_molecule_design"), "generation"),
    "paragraph2actions": "actions",
}
"""Tasks that ship, by their names in SMolInstruct, Mol-Instructions and others."""
_SHIPPED = {
    ("chemistry", "text"): "captioning",
    ("text", "chemistry"): "generation",
    ("reactants", "chemistry"): "forward",
    ("chemistry", "reactants"): "retrosynthesis",
}
_GENERIC = {
    *("y", "label", "labels", "target", "value", "output", "class", "activity", "result", "score", "property"),
    *("exp", "expt", "measured", "experimental"),
}
"""Names of columns that do not say what they are: the file's name does."""
_PREDICTED = re.compile(r"predicted|\bpred\b|_pred|^pred_|calculated|\bcalc\b|_calc|estimated", re.IGNORECASE)
_MAIN = ("smiles", "canonical_smiles", "isosmiles", "isomeric_smiles", "drug", "molecule", "mol", "compound", "selfies")
"""Names of the column that a table is about, if several have SMILES."""
_MAX_TASKS = 40
_LISTED = 6
"""Labels up to which a prompt names each."""


@dataclass(frozen=True)
class TaskGuess:
    """A task. record: the fields of its `[tasks.NAME]` table, or None for one that ships. why: per field."""

    name: str
    source: str
    target: str
    record: dict[str, Any] | None
    why: dict[str, str]


@dataclass(frozen=True)
class SourceGuess:
    """A `[[sources]]` table without file and split. columns: by role. task_names: by the values of the task column."""

    columns: dict[str, str]
    tasks: tuple[str, ...]
    task_names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """What a table is for. splits: the column that names splits. molecules: whether every row is about a molecule.
    unused: why, by column."""

    tasks: tuple[TaskGuess, ...]
    sources: tuple[SourceGuess, ...]
    splits: Column | None
    molecules: bool
    unused: dict[str, str]


def propose(columns: Mapping[str, Column], cells: Cells, stem: str) -> Proposal:
    """Tasks and sources for a table. stem: its file's name, for columns whose own says nothing."""
    splits = next((column for column in columns.values() if column.kind == "split"), None)
    found = _Found(columns, cells, stem)
    pair = _pair(columns)
    if pair is not None:
        _from_pair(found, *pair)
    else:
        _from_subject(found)
    used = {name for source in found.sources for name in source.columns.values()} | found.in_prompts
    used |= {splits.name} if splits else set()
    unused = {name: found.reasons.get(name, column.why) for name, column in columns.items() if name not in used}
    molecules = all(_has_molecule(task) for task in found.tasks.values())
    return Proposal(tuple(found.tasks.values()), tuple(found.sources), splits, molecules, unused)


class _Found:
    """What has been proposed so far."""

    def __init__(self, columns: Mapping[str, Column], cells: Cells, stem: str) -> None:
        self.columns, self.cells, self.stem = columns, cells, stem
        self.tasks: dict[str, TaskGuess] = {}
        self.sources: list[SourceGuess] = []
        self.in_prompts: set[str] = set()
        self.reasons: dict[str, str] = {}

    def of_kind(self, *kinds: str) -> list[Column]:
        return [column for column in self.columns.values() if column.kind in kinds]

    def add(self, task: TaskGuess, source: Column | None = None, target: Column | None = None) -> str:
        """A task, under a new name if its own is taken, and the source of its rows, unless others share it."""
        name, number = task.name, 2
        while name in self.tasks:
            name, number = f"{task.name}_{number}", number + 1
        task = replace(task, name=name)
        self.tasks[name] = task
        if source is not None:
            columns = {"source": source.name} if target is None else {"source": source.name, "target": target.name}
            self.sources.append(SourceGuess(columns, (task.name,)))
        return task.name


def _pair(columns: Mapping[str, Column]) -> tuple[Column, Column] | None:
    """The columns whose names say that they are source and target."""
    useless = ("empty", "constant", "split")
    lower = {name.lower(): column for name, column in columns.items() if column.kind not in useless}
    return next(((lower[a], lower[b]) for a, b in _PAIRS if a in lower and b in lower), None)


def _from_pair(found: _Found, source: Column, target: Column) -> None:
    if names := _by_prompts([cell for cell in found.cells[source.name] if not is_missing(cell)]):
        for name in names:
            about = shipped()[name]
            why = {"source": f"{source.name}: its texts begin with the task's prompt"}
            found.add(TaskGuess(name, about.source_domain, about.target_domain, None, why))
        found.sources.append(SourceGuess({"source": source.name, "target": target.name}, names))
        return
    named = next((found.columns[name] for name in _TASK_COLUMNS if name in found.columns), None)
    several = named is not None and named.kind == "label"
    values = named.values if several and named else (named.values[0] if named and named.kind == "constant" else "",)
    task_names: dict[str, str] = {}
    for value in values:
        chosen = (
            [n for n, cell in enumerate(found.cells[named.name]) if cell.strip() == value]
            if several and named
            else None
        )
        task = _pair_task(found, source.name, target.name, value, chosen)
        found.tasks[task.name] = task
        if several and task.name != value:
            task_names[value] = task.name
    columns = {"source": source.name, "target": target.name, **({"task": named.name} if several and named else {})}
    found.sources.append(SourceGuess(columns, tuple(found.tasks), task_names))
    if named is not None and not several:
        found.reasons[named.name] = f"{named.why}, from which the task is named"
    for name in ("input", "output", "instruction"):
        if name in found.columns and name not in (source.name, target.name, *found.in_prompts):
            found.reasons[name] = "instructions of the collection; the task's own prompt takes their place"


def _by_prompts(sources: Sequence[str]) -> tuple[str, ...]:
    """The tasks that ship, if nearly all sources begin with the prompt of one."""
    prompted = {
        name: sum(task.unprompted(cell) is not None for cell in sources) for name, task in shipped().scored.items()
    }
    return (
        tuple(name for name, count in prompted.items() if count)
        if sum(prompted.values()) >= SURE * len(sources)
        else ()
    )


def _pair_task(found: _Found, source: str, target: str, value: str, chosen: list[int] | None) -> TaskGuess:
    """The task of the rows numbered `chosen` (None: all), which the file calls `value`."""

    def column(name: str) -> Column:
        cells = found.cells[name]
        return found.columns[name] if chosen is None else examine(name, [cells[n] for n in chosen])

    left, right = column(source), column(target)
    domains = _domains(left, right)
    alias = _ALIASES.get(_slug(value), value)
    shipped = _SHIPPED.get(domains)
    if shipped is not None and (alias == shipped or not value) and left.kind != "name":
        return TaskGuess(
            shipped, *domains, None, {"source": f"{source}: {left.why}", "target": f"{target}: {right.why}"}
        )
    name = _slug(value or found.stem)
    prompt = _instruction(found, chosen) or _about(found, chosen, right) or _prompt(left, right, _words(value or name))
    return _task(name, left, right, domains, prompt)


def _instruction(found: _Found, chosen: list[int] | None) -> str | None:
    """A prompt from the file's instructions: rows may ask for different things in them."""
    cells = found.cells.get("instruction", ())
    own = list(cells) if chosen is None else [cells[n] for n in chosen] if cells else []
    if not own or any(map(is_missing, own)):
        return None
    found.in_prompts.add("instruction")
    return "{instruction} {source}"


def _about(found: _Found, chosen: list[int] | None, right: Column) -> str | None:
    """A prompt that names what a row asks for, in a column `target` beside raw_input (SIDER's effects)."""
    cells = found.cells.get("target", ())
    own = list(cells) if chosen is None else [cells[n] for n in chosen] if cells else []
    if right.name == "target" or not own or any(map(is_missing, own)):
        return None
    found.in_prompts.add("target")
    return "Predict {target} of the molecule: "


def _domains(left: Column, right: Column) -> tuple[str, str]:
    """Source and target domain. SMILES of which most have several compounds, beside others, are reactants."""
    source = {"smiles": "chemistry", "reaction": "reaction", "protein": "protein"}.get(left.kind, "text")
    target = {"smiles": "chemistry", "number": "number", "label": "label", "name": "name", "formula": "formula"}
    found = source, target.get(right.kind, "text")
    if source == "reaction" and right.kind == "smiles":
        return "reaction", "reagents"
    if found == ("chemistry", "chemistry"):
        if left.several >= 0.5 > right.several:
            return "reactants", "chemistry"
        if right.several >= 0.3 > left.several:
            return "chemistry", "reactants"
    return found


def _from_subject(found: _Found) -> None:
    """Tasks about the reaction, molecule or protein of each row."""
    subject = _subject(found)
    if subject is None:
        if texts := found.of_kind("text"):
            found.add(TaskGuess("text_spans", "text", "text", None, {"source": f"{texts[0].name}: {texts[0].why}"}))
            found.sources.append(SourceGuess({"text": texts[0].name}, ("text_spans",)))
        return
    if subject.kind == "reaction":
        for name, domains in (("forward", ("reactants", "chemistry")), ("retrosynthesis", ("chemistry", "reactants"))):
            found.add(TaskGuess(name, *domains, None, {"source": f"{subject.name}: {subject.why}"}))
        found.sources.append(SourceGuess({"reaction": subject.name}, ("forward", "retrosynthesis")))
    elif subject.kind == "smiles":
        _translations(found, subject)
    elif texts := found.of_kind("text"):
        found.add(_task(f"{_slug(subject.name)}_description", subject, texts[0]), subject, texts[0])
    _properties(found, subject)
    if not found.sources and subject.kind == "smiles":
        found.add(
            TaskGuess("smiles_spans", "chemistry", "chemistry", None, {"source": f"{subject.name}: {subject.why}"})
        )
        found.sources.append(SourceGuess({"smiles": subject.name}, ("smiles_spans",)))


def _subject(found: _Found) -> Column | None:
    """The column that the table is about."""
    for kind in ("reaction", "smiles", "protein"):
        if candidates := found.of_kind(kind):
            named = [column for name in _MAIN for column in candidates if column.name.lower() == name]
            chosen = (named or candidates)[0]
            for other in candidates:
                if other != chosen:
                    found.reasons[other.name] = f"{other.why}; the rows are about {chosen.name}"
            return chosen
    return None


def _translations(found: _Found, smiles: Column) -> None:
    """Between a molecule and its captions, names and formula."""
    if texts := found.of_kind("text"):
        why = {"source": f"{smiles.name}: {smiles.why}", "target": f"{texts[0].name}: {texts[0].why}"}
        found.add(TaskGuess("captioning", "chemistry", "text", None, why))
        found.add(TaskGuess("generation", "text", "chemistry", None, why))
        found.sources.append(SourceGuess({"smiles": smiles.name, "text": texts[0].name}, ("captioning", "generation")))
    for name in found.of_kind("name"):
        there = found.add(_task(f"smiles_to_{_slug(name.name)}", smiles, name), smiles, name)
        asked = "Write in SMILES the molecule with the name: "
        back = found.add(_task(f"{_slug(name.name)}_to_smiles", name, smiles, prompt=asked), name, smiles)
        for one, other in ((there, back), (back, there)):
            record = {**(found.tasks[one].record or {}), "inverse": other}
            found.tasks[one] = replace(found.tasks[one], record=record)
    for formula in found.of_kind("formula"):
        found.add(_task(f"smiles_to_{_slug(formula.name)}", smiles, formula), smiles, formula)


def _properties(found: _Found, subject: Column) -> None:
    """A task for each number and label that is measured; labels of no and yes together."""
    measured: list[Column] = []
    for column in found.of_kind("number", "label"):
        by = computed_by(found.cells[subject.name], found.cells[column.name]) if subject.kind == "smiles" else None
        if by is not None:
            found.reasons[column.name] = f"{column.why}; they follow from {subject.name}: {by}"
        elif "year" in column.name.lower():
            found.reasons[column.name] = f"{column.why}; years may split the rows: split_by = '{column.name}'"
        elif _PREDICTED.search(column.name):
            found.reasons[column.name] = f"{column.why}; by its name a prediction, not a measurement"
        elif column.name.lower() in _TASK_COLUMNS or len(measured) >= _MAX_TASKS:
            found.reasons[column.name] = f"{column.why}; not a task of its own"
        else:
            measured.append(column)
    binary = [column for column in measured if column.binary]
    domain = _domains(subject, subject)[0]
    if len(binary) > 1:
        names = tuple(column.name for column in binary)
        asked = ", ".join(map(_words, names)) if len(names) < _LISTED else _words(found.stem)
        prompt = _prompt(subject, binary[0], asked)
        record = {"source": domain, "target": "labels", "prompt": prompt, "labels": list(names)}
        why = {"source": f"{subject.name}: {subject.why}", "labels": f"{len(names)} columns of no and yes"}
        task = TaskGuess(_slug(found.stem), domain, "labels", record, why)
        found.in_prompts |= set(names)
        found.add(task, subject)
        measured = [column for column in measured if column not in binary]
    protein = next(iter(found.of_kind("protein")), None) if subject.kind == "smiles" else None
    for column in measured:
        called = _called(column.name, found.stem)
        prompt = _prompt(subject, column, _words(called))
        if protein is not None and protein.name.replace("_", "").replace(" ", "").isalnum():
            prompt = f"{prompt.removesuffix(': ')} and the protein {{{protein.name}}}: "
            found.in_prompts.add(protein.name)
        found.add(_task(_slug(called), subject, column, prompt=prompt), subject, column)


def _task(
    name: str, source: Column, target: Column, domains: tuple[str, str] | None = None, prompt: str | None = None
) -> TaskGuess:
    left, right = domains or _domains(source, target)
    record: dict[str, Any] = {
        "source": left,
        "target": right,
        "prompt": prompt or _prompt(source, target, _words(target.name)),
    }
    why = {"source": f"{source.name}: {source.why}", "target": f"{target.name}: {target.why}"}
    if right == "number" and target.decimals is not None:
        record["decimals"] = target.decimals
        why["decimals"] = "resolve a hundredth of the numbers' spread"
    if right == "label":
        record["labels"] = list(target.values)
    return TaskGuess(name, left, right, record, why)


def _prompt(source: Column, target: Column, words: str) -> str:
    """The prompt of a task, in English."""
    about = {"smiles": "molecule", "reaction": "reaction", "protein": "protein"}.get(source.kind, "text")
    asked = {
        "number": f"Predict the {words} of the {about}: ",
        "label": f"Predict {words} of the {about}: ",
        "name": f"Write the name ({words}) of the {about}: ",
        "formula": f"Write the molecular formula of the {about}: ",
        "text": f"Write the {words} of the {about}: ",
        "smiles": f"Write in SMILES {words} of the {about}: ",
    }
    return asked.get(target.kind, f"Write {words} of the {about}: ").replace("{", "{{").replace("}", "}}")


def _called(column: str, stem: str) -> str:
    """What a column is of, for its task's name: `y` alone says nothing."""
    if column.lower() not in _GENERIC:
        return column
    return f"{stem} {column}" if len(column) > 1 else stem


def _has_molecule(task: TaskGuess) -> bool:
    return "chemistry" in (task.source, task.target) or task.source == "reaction"


def _slug(text: str) -> str:
    """A task's name from a column's, a file's or another task's."""
    name = re.sub(r"[^A-Za-z0-9-]+", "_", text.strip()).strip("_")[:60]
    return name if name[:1].isalpha() else f"task_{name}".rstrip("_")


def _words(name: str) -> str:
    """A name as words: measured_log_solubility, measuredLogSolubility."""
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[_\W]+", " ", name)).split())
