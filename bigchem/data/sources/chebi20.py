"""ChEBI-20: molecules and their descriptions, as MolT5 published them (github.com/blender-nlp/MolT5, ChEBI-20_data).

`CID<tab>SMILES<tab>description` with a header, no quoting: a quote is a character, and a tab after the second one
belongs to the description. SMILES are kept as written, not canonicalised: published numbers are for these strings.
"""

from __future__ import annotations

from collections.abc import Iterator

from bigchem.data.sources.base import (
    Record,
    Row,
    SourceConfig,
    checked_fields,
    column_records,
    make_row,
    wanted,
)
from bigchem.data.sources.molecules import parse


class Chebi20:
    """Both directions of every row: captioning and generation."""

    tasks: tuple[str, ...] = ("captioning", "generation")

    def records(self, source: SourceConfig) -> Iterator[Record]:
        """Fields: SMILES, description."""
        return column_records(source, ("SMILES", "description"), lambda line: line.split("\t", 2))

    def rows(self, record: Record, source: SourceConfig) -> list[Row]:
        """RowError if RDKit cannot read the SMILES."""
        smiles, description = checked_fields(record, 2)
        rows = [make_row("captioning", smiles, description), make_row("generation", description, smiles)]
        parse(rows[0].source)
        return wanted(source, rows)
