"""The corpus that ships with the package: five tasks, any number of valid rows, learnable by a 1 M model.

Row i of a corpus is a function of (seed, i) alone, independent of process, order and number of rows. Molecules are
grown from building blocks, RDKit runs the reactions, captions state what RDKit finds, and a grammar writes each
procedure together with its actions.
"""

from collections.abc import Iterator
from random import Random

from bigchem.chemistry import one_compound
from bigchem.data.sources.base import Record, Row, SourceConfig
from bigchem.data.sources.synthetic.captions import caption
from bigchem.data.sources.synthetic.molecules import molecule
from bigchem.data.sources.synthetic.procedures import procedure
from bigchem.data.sources.synthetic.reactions import reaction
from bigchem.tasks import Task, Tasks, shipped


class Synthetic:
    """The reader of the synthetic corpus. Rows cycle through the source's tasks."""

    def gives(self, task: Task) -> bool:
        return task.name in shipped().scored

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """One empty record per row."""
        return (Record("synthetic", line, ()) for line in range(1, source.rows + 1))

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """The one row of a record."""
        wanted = source.tasks or tuple(shipped().scored)
        # Random hashes a string seed with SHA-512: equal in every process and on every machine.
        rng = Random(f"bigchem synthetic {source.seed} {record.line}")
        return [_row(wanted[record.line % len(wanted)], rng)]


def _row(task: str, rng: Random) -> Row:
    if task == "actions":
        return Row(task, *procedure(rng))
    if task in ("captioning", "generation"):
        smiles = molecule(rng)
        text = caption(smiles)
        sides = (smiles, text) if task == "captioning" else (text, smiles)
        return Row(task, *sides, one_compound(smiles))
    drawn = reaction(rng)
    if task == "retrosynthesis":
        return Row(task, drawn.product, drawn.side(with_reagents=False), drawn.product)
    return Row(task, drawn.side(with_reagents=rng.random() < 0.5), drawn.product, drawn.product)
