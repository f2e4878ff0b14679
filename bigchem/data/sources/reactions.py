"""Reactions in the layouts of the published USPTO data: three readers, one parser (bigchem/chemistry/reactions.py)."""

from collections.abc import Iterator

from bigchem.chemistry import NotationError, split_reaction
from bigchem.data.sources.base import LAYOUTS, Record, Row, RowError, SourceConfig
from bigchem.data.sources.files import COMMAS, TABS, column_records, line_records
from bigchem.data.sources.rows import checked_fields
from bigchem.tasks import Task, Tasks


class _Reactions:
    """Rows of product prediction and of retrosynthesis from a record of one field: the reaction, optionally with a
    CXSMILES note."""

    reagents_have_own_section = True

    def gives(self, task: Task) -> bool:
        return LAYOUTS[frozenset({"reaction"})](task)

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """Two rows. RowError if chemistry.split_reaction refuses the reaction."""
        (reaction,) = checked_fields(record, 1)
        return reaction_rows(reaction, source, tasks, self.reagents_have_own_section)


class Rsmi(_Reactions):
    """Lowe's patent reactions (.rsmi): a tab-separated table with the column `ReactionSmiles`."""

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: reaction."""
        return column_records(source, TABS, ("ReactionSmiles",))


class ReactionCsv(_Reactions):
    """USPTO-50k as in reaction_prediction_seq2seq: a csv with the column `reactants>reagents>production`."""

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: reaction."""
        return column_records(source, COMMAS, ("reactants>reagents>production",))


class MappedReactions(_Reactions):
    """USPTO-MIT and USPTO-15k as in rexgen: `mapped>>mapped edits`, the edits (not used) after a space.

    Reagents are among the reactants; they are those without an atom mapped into the product. USPTO-15k's products have
    no maps, so with reagents = "drop" its rows are refused.
    """

    reagents_have_own_section = False

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: reaction."""
        for record in line_records(source):
            yield Record(record.file, record.line, (record.fields[0].split(maxsplit=1)[0],))


def reaction_rows(reaction: str, source: SourceConfig, tasks: Tasks, own_section: bool = True) -> list[Row]:
    """The rows of a reaction SMILES, from reactants to product and back. own_section: see split_reaction."""
    try:
        left, right = split_reaction(reaction, source.reagents == "drop", own_section, source.products == "all")
    except NotationError as error:
        raise RowError(str(error)) from None
    wanted = filter(LAYOUTS[frozenset({"reaction"})], source.chosen(tasks).values())
    sides = {"reactants": left, "chemistry": right}
    return [Row(task.name, sides[task.source_domain], sides[task.target_domain], right) for task in wanted]
