"""Tables whose columns the recipe names: `columns = {smiles = "SMILES", text = "description"}`."""

from collections.abc import Iterator

from bigchem.data.reading.delimited import Layout
from bigchem.data.sources.base import Record, Row, SourceConfig
from bigchem.data.sources.columns import optional_columns, record_columns, record_rows
from bigchem.data.sources.files import column_records
from bigchem.tasks import Task, Tasks


class Table:
    """A table with a header line. layout: its separator and quoting."""

    def gives(self, task: Task) -> bool:
        return True

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: the named columns. UserError if one is missing."""
        return column_records(source, self._layout, record_columns(source, tasks), optional_columns(source))

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """As in bigchem.data.sources.columns for the source's roles."""
        return record_rows(record, source, tasks)
