"""Public formats by name: what a build's `[[sources]] format = ...` can say."""

from __future__ import annotations

from bigchem.data.sources.base import Reader
from bigchem.data.sources.chebi20 import Chebi20
from bigchem.data.sources.jsonl import Jsonl
from bigchem.data.sources.parallel_text import ParallelText
from bigchem.data.sources.reactions import MappedReactions, ReactionCsv, Rsmi
from bigchem.data.sources.synthetic import Synthetic
from bigchem.errors import unknown

READERS: dict[str, Reader] = {
    "synthetic": Synthetic(),
    "chebi20": Chebi20(),
    "rsmi": Rsmi(),
    "mapped_reactions": MappedReactions(),
    "reaction_csv": ReactionCsv(),
    "parallel_text": ParallelText(),
    "jsonl": Jsonl(),
}
"""Readers keep no state: one of each serves every source."""


def reader(name: str, where: str | None = None) -> Reader:
    """The reader of a format; UserError with the nearest name for an unknown one."""
    if name not in READERS:
        unknown("format", name, list(READERS), where)
    return READERS[name]
