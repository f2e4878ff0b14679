"""Readers of public formats, one for each `format` of a recipe's `[[sources]]`.

Imported from outside: this package, base, hf_datasets, sides.
"""

from bigchem.base.errors import unknown
from bigchem.data.sources.augment import spellings
from bigchem.data.sources.base import Reader, Record, Row, SourceConfig
from bigchem.data.sources.chebi20 import Chebi20
from bigchem.data.sources.files import COMMAS, TABS
from bigchem.data.sources.hf_datasets import Datasets
from bigchem.data.sources.jsonl import Jsonl
from bigchem.data.sources.parallel_text import ParallelText
from bigchem.data.sources.reactions import MappedReactions, ReactionCsv, Rsmi
from bigchem.data.sources.synthetic.corpus import Synthetic
from bigchem.data.sources.tables import Table
from bigchem.data.sources.unlabelled import SmilesLines, TextLines
from bigchem.tasks import Tasks

READERS: dict[str, Reader] = {
    "synthetic": Synthetic(),
    "chebi20": Chebi20(),
    "rsmi": Rsmi(),
    "mapped_reactions": MappedReactions(),
    "reaction_csv": ReactionCsv(),
    "parallel_text": ParallelText(),
    "csv": Table(COMMAS),
    "tsv": Table(TABS),
    "jsonl": Jsonl(),
    "datasets": Datasets(),
    "text_lines": TextLines(),
    "smiles_lines": SmilesLines(),
}
"""Readers have no state: one of each serves all sources."""


def reader(name: str, where: str | None = None) -> Reader:
    """The reader of a format; UserError with the nearest name for an unknown one."""
    if name not in READERS:
        unknown("format", name, list(READERS), where)
    return READERS[name]


def read_rows(record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
    """The rows of a record, each followed by up to `source.augment` other spellings. RowError if there is none."""
    rows = reader(source.format).rows(record, source, tasks)
    if not source.augment:
        return rows
    return [spelled for row in rows for spelled in (row, *spellings(tasks[row.task], row, source.augment))]
