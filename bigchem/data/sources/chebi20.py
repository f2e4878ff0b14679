"""ChEBI-20: molecules and their descriptions, as MolT5 published them (github.com/blender-nlp/MolT5, ChEBI-20_data).

`CID<tab>SMILES<tab>description` with a header; later tabs belong to the description. In the published files a quote is
an ordinary character; a quoted copy, as from pandas, is recognised. SMILES stay as written, not canonicalised:
published numbers are for these strings.
"""

from collections.abc import Iterator

from bigchem.data.sources.base import LAYOUTS, Record, Row, SourceConfig
from bigchem.data.sources.columns import named_rows
from bigchem.data.sources.files import TABS, column_records
from bigchem.data.sources.rows import checked_fields
from bigchem.tasks import Task, Tasks


class Chebi20:
    """Both directions of every row: captioning and generation."""

    def gives(self, task: Task) -> bool:
        return LAYOUTS[frozenset({"smiles", "text"})](task)

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: SMILES, description."""
        return column_records(source, TABS._replace(splits=2), ("SMILES", "description"))

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """RowError if RDKit cannot read the SMILES."""
        smiles, text = checked_fields(record, 2)
        return named_rows({"smiles": smiles, "text": text}, source, tasks)
