"""Reactions in the layouts that the USPTO data is published in: one parser, three readers.

What becomes of a reaction `precursors>reagents>products`:

- Atom maps are dropped, every fragment is canonicalised by RDKit, and compounds are sorted: rows that differ only in
  spelling come out equal. A compound that stands there twice stays twice.
- The fragments that a `|f:0.2,4.5|` note groups are one compound, joined by `~` as in Text+Chem T5's data. Other notes
  (`^1:` radicals) repeat what the bracket atoms already say and are ignored.
- Reagents are mixed into the precursors (USPTO-MIT "mixed"), or left out with `reagents = "drop"`.
- Of several products, those that hold no carbon or already stand among the precursors are none (counter-ions, HCl,
  what was left over). If one is left it is the product; if several are, the row is refused, or with `products = "all"`
  they are the product side together, sorted. In USPTO-MIT test, 1,352 of 40,000 rows have several, and 156 are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from bigchem.data.sources.base import Record, Row, RowError, SourceConfig, dotted
from bigchem.data.sources.files import COMMAS, TABS, column_records, line_records
from bigchem.data.sources.molecules import atom_maps, canonical, has_carbon, without_maps
from bigchem.data.sources.rows import checked_fields, wanted

_NOTE = re.compile(r"[|,]f:(\d+(?:\.\d+)*(?:,\d+(?:\.\d+)*)*)(?=[|,])")


class _Reactions:
    """Forward and retrosynthesis rows from a record of one field: the reaction, with its CXSMILES note if it has
    one."""

    tasks: tuple[str, ...] = ("forward", "retrosynthesis")
    reagents_have_own_section = True

    def rows(self, record: Record, source: SourceConfig) -> list[Row]:
        """Two rows. RowError as the module's docstring says, and if RDKit cannot read a compound."""
        (reaction,) = checked_fields(record, 1)
        return wanted(source, reaction_rows(reaction, source, self.reagents_have_own_section))


class Rsmi(_Reactions):
    """Lowe's patent reactions (.rsmi): a tab-separated table with the column `ReactionSmiles`."""

    def records(self, source: SourceConfig) -> Iterator[Record]:
        """Fields: reaction."""
        return column_records(source, TABS, ("ReactionSmiles",))


class ReactionCsv(_Reactions):
    """USPTO-50k as reaction_prediction_seq2seq has it: a csv with the column `reactants>reagents>production`."""

    def records(self, source: SourceConfig) -> Iterator[Record]:
        """Fields: reaction."""
        return column_records(source, COMMAS, ("reactants>reagents>production",))


class MappedReactions(_Reactions):
    """USPTO-MIT and USPTO-15k as rexgen has them: `mapped>>mapped edits`, the edits (not used) after a space.

    Reagents stand among the reactants; dropped are those of which no atom is mapped into the product. USPTO-15k's
    products carry no maps, so that its rows are refused where reagents are to be dropped.
    """

    reagents_have_own_section = False

    def records(self, source: SourceConfig) -> Iterator[Record]:
        """Fields: reaction."""
        for record in line_records(source):
            yield Record(record.file, record.line, (record.fields[0].split(maxsplit=1)[0],))


def reaction_rows(reaction: str, source: SourceConfig, own_section: bool = True) -> list[Row]:
    """The two rows of a reaction SMILES. own_section: as split_reaction has it."""
    left, right = split_reaction(reaction, source.reagents == "drop", own_section, source.products == "all")
    return [Row("forward", left, right, right), Row("retrosynthesis", right, left, right)]


def split_reaction(
    reaction: str, drop_reagents: bool = False, own_section: bool = True, all_products: bool = False
) -> tuple[str, str]:
    """(precursors, products) of a reaction SMILES, canonical: see the module's docstring.

    own_section: reagents are what stands between the two `>`; else the precursors that are not mapped into the product.
    """
    smiles, _, note = reaction.partition(" ")
    sections = smiles.split(">")
    if len(sections) != 3:
        raise RowError("not a reaction: two '>' expected")
    left, middle, right = _group(sections, _groups(note))
    if drop_reagents and not own_section:
        maps = frozenset[str]().union(*(atom_maps(compound) for compound in right))
        if not maps:
            raise RowError("reagents cannot be told from reactants: the product has no atom maps")
        kept = [compound for compound in left + middle if atom_maps(compound) & maps]
    else:
        kept = left if drop_reagents else left + middle
    if not kept:
        raise RowError("no reactants")
    spelled = {compound: _compound(compound) for compound in left + middle}
    products = _products([_compound(compound) for compound in right], spelled.values())
    if len(products) != 1 and not (products and all_products):
        raise RowError(f"{len(products)} products")
    return ".".join(sorted(spelled[compound] for compound in kept)), ".".join(products)


def _group(sections: list[str], groups: list[list[int]]) -> list[list[str]]:
    """The compounds of each section. Groups count fragments through all three sections; a compound's are joined by
    `~`."""
    compounds: list[list[str]] = []
    first = 0
    for section in sections:
        fragments = section.split(".") if section else []
        inside = [group for group in groups if first <= group[0] < first + len(fragments)]
        members = {index for group in inside for index in group}
        last = first + len(fragments) - 1
        if any(not first <= index <= last for index in members):
            raise RowError("a fragment note groups across '>' or past the end")
        joined = ["~".join(fragments[index - first] for index in group) for group in inside]
        compounds.append(joined + [f for index, f in enumerate(fragments, start=first) if index not in members])
        first = last + 1
    if any(group[0] >= first for group in groups):
        raise RowError("a fragment note groups across '>' or past the end")
    return compounds


def _groups(note: str) -> list[list[int]]:
    """[[0, 2], [4, 5]] from `|f:0.2,4.5|`."""
    match = _NOTE.search(note)
    if match is None:
        return []
    groups = [[int(index) for index in group.split(".")] for group in match.group(1).split(",")]
    if sum(map(len, groups)) != len({index for group in groups for index in group}):
        raise RowError("a fragment note names a fragment twice")
    return groups


def _compound(fragments: str) -> str:
    text = without_maps(fragments)
    if "~" not in text:
        return canonical(text)
    return "~".join(sorted(map(canonical, text.split("~"))))


def _products(products: list[str], precursors: Collection[str]) -> list[str]:
    candidates = sorted(set(products))
    if len(candidates) > 1:
        candidates = [p for p in candidates if p not in precursors and has_carbon(dotted(p))]
    return candidates
