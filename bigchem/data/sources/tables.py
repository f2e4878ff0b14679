"""Tables whose columns the recipe names: `columns = {smiles = "SMILES", text = "description"}`."""

from __future__ import annotations

from collections.abc import Iterator

from bigchem.data.sources.base import Record, Row, SourceConfig
from bigchem.data.sources.columns import column_names, optional_columns, record_rows
from bigchem.data.sources.files import Split, column_records
from bigchem.tasks import TRAINABLE_NAMES


class Table:
    """A table with a header line. split: how it is written; files.commas for csv, files.tabs for tsv."""

    tasks: tuple[str, ...] = TRAINABLE_NAMES

    def __init__(self, split: Split) -> None:
        self._split = split

    def records(self, source: SourceConfig) -> Iterator[Record]:
        """Fields: the named columns. UserError for one that is not there."""
        return column_records(source, self._split, tuple(column_names(source).values()), optional_columns(source))

    def rows(self, record: Record, source: SourceConfig) -> list[Row]:
        """As bigchem.data.sources.columns says for the roles that the source names."""
        return record_rows(record, source)
