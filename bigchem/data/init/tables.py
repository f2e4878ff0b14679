"""From a table's columns to tasks and sources. Pure.

- A pair of columns that names its sides (source and target, input and output, ...): one task, or one for each value of
  a column of tasks.
- Otherwise what the table is about (a reaction, a molecule, a protein, in this order) and a task for each other column.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bigchem.data.init.columns import Column
from bigchem.data.init.pairs import from_pair, pair_of
from bigchem.data.init.proposals import Cells, Found, SourceGuess, TaskGuess
from bigchem.data.init.subjects import from_subject


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
    found = Found(columns, cells, stem)
    pair = pair_of(columns)
    if pair is not None:
        from_pair(found, *pair)
    else:
        from_subject(found)
    used = {name for source in found.sources for name in source.columns.values()} | found.in_prompts
    used |= {splits.name} if splits else set()
    unused = {name: found.reasons.get(name, column.why) for name, column in columns.items() if name not in used}
    molecules = all(task.has_molecule for task in found.tasks.values())
    return Proposal(tuple(found.tasks.values()), tuple(found.sources), splits, molecules, unused)
