"""Tables with a source and a target column, and perhaps one of tasks, as in SMolInstruct and Mol-Instructions. Pure."""

from collections.abc import Mapping, Sequence

from bigchem.chemistry import is_missing
from bigchem.data.init import proposals
from bigchem.data.init.columns import SURE, Column, examine
from bigchem.data.init.proposals import TASK_COLUMNS, Found, SourceGuess, TaskGuess
from bigchem.tasks import shipped

_NAMES = (
    *(("raw_input", "raw_output"), ("source", "target"), ("src", "tgt"), ("input", "output"), ("question", "answer")),
    *(("prompt", "completion"), ("reactants", "products"), ("reactants", "product"), ("precursors", "product")),
)
"""Names of a source's and a target's column, in the order of preference: raw texts before those in sentences."""

_ASKED = {"instruction": "{instruction} {source}", "target": "Predict {target} of the molecule: "}
"""Columns that tell what each row of a task asks for (properties in Mol-Instructions, effects in SMolInstruct's SIDER),
and the prompt that says so."""


def pair_of(columns: Mapping[str, Column]) -> tuple[Column, Column] | None:
    """The columns whose names say that they are source and target."""
    useless = ("empty", "constant", "split")
    lower = {name.lower(): column for name, column in columns.items() if column.kind not in useless}
    return next(((lower[a], lower[b]) for a, b in _NAMES if a in lower and b in lower), None)


def from_pair(found: Found, source: Column, target: Column) -> None:
    """Proposes the tasks whose prompts the sources begin with, else one task for each value of the task column, else
    one."""
    if names := _by_prompts([cell for cell in found.cells[source.name] if not is_missing(cell)]):
        for name in names:
            about = shipped()[name]
            why = {"source": f"{source.name}: its texts begin with the task's prompt"}
            found.add(TaskGuess(name, about.source_domain, about.target_domain, None, why))
        found.sources.append(SourceGuess({"source": source.name, "target": target.name}, names))
        return
    named = next((found.columns[name] for name in TASK_COLUMNS if name in found.columns), None)
    if named is not None and named.kind == "label":
        task_names = {value: _add(found, source.name, target.name, value, named.name) for value in named.values}
        columns = {"source": source.name, "target": target.name, "task": named.name}
        other_names = {value: name for value, name in task_names.items() if value != name}
        found.sources.append(SourceGuess(columns, tuple(task_names.values()), other_names))
    else:
        value = named.values[0] if named is not None and named.kind == "constant" else ""
        name = _add(found, source.name, target.name, value)
        found.sources.append(SourceGuess({"source": source.name, "target": target.name}, (name,)))
        if named is not None:
            found.reasons[named.name] = f"{named.why}; it only tells what the task is"
    for name in ("input", "output", "instruction"):
        if name in found.columns and name not in (source.name, target.name, *found.in_prompts):
            found.reasons[name] = "instructions of the collection; the task's own prompt takes their place"


def _by_prompts(sources: Sequence[str]) -> tuple[str, ...]:
    """The tasks that ship, if nearly all sources begin with the prompt of one."""
    counts = {name: sum(map(bool, map(task.unprompted, sources))) for name, task in shipped().scored.items()}
    sure = sum(counts.values()) >= SURE * len(sources)
    return tuple(name for name, count in counts.items() if count) if sure else ()


def _add(found: Found, source: str, target: str, value: str, task_column: str | None = None) -> str:
    """Adds the task that the file calls `value`, from the rows that have it in the task column. Returns its name."""
    tasks = found.cells[task_column] if task_column is not None else []
    rows = [n for n, cell in enumerate(tasks) if cell.strip() == value]

    def cells(name: str) -> list[str]:
        column = found.cells.get(name, [])
        return [column[n] for n in rows] if task_column is not None and column else list(column)

    left, right = examine(source, cells(source)), examine(target, cells(target))
    ends = proposals.ends_of(left, right)
    known = proposals.shipped_with(ends)
    if known is not None and known not in found.tasks and left.kind != "name":
        called = f"'{value}': " if value else ""
        why = {"source": f"{called}{source}: {left.why}", "target": f"{target}: {right.why}"}
        return found.add(TaskGuess(known, *ends, None, why))
    name = proposals.slug(value or found.stem)
    prompt = proposals.prompt_for(left, right, proposals.words(value or name))
    for column, template in _ASKED.items():
        if column not in (source, target) and cells(column) and not any(map(is_missing, cells(column))):
            found.in_prompts.add(column)
            prompt = template
            break
    return found.add(proposals.task(name, left, right, ends, prompt))
