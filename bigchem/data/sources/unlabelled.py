"""Unlabelled corpora for span corruption, one document or one molecule per line."""

from collections.abc import Iterator

from bigchem.data.sources.base import Record, Row, SourceConfig
from bigchem.data.sources.columns import named_rows
from bigchem.data.sources.files import line_records
from bigchem.data.sources.rows import checked_fields, longest, smiles_span
from bigchem.tasks import Task, Tasks


class TextLines:
    """One document per line; a long one becomes several rows of at most `chunk_chars` characters."""

    def gives(self, task: Task) -> bool:
        return task.name == "text_spans"

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: the line."""
        return line_records(source)

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """RowError for a word of more than `chunk_chars` characters."""
        (text,) = checked_fields(record, 1, longest(source))
        return named_rows({"text": text}, source, tasks)


class SmilesLines:
    """One molecule per line (.smi): SMILES, then a name or CXSMILES after white space. SMILES stay as written."""

    def gives(self, task: Task) -> bool:
        return task.name == "smiles_spans"

    def records(self, source: SourceConfig, tasks: Tasks) -> Iterator[Record]:
        """Fields: the line. A first line that begins with the word smiles is a header and is skipped."""
        for record in line_records(source):
            if record.line > 1 or record.fields[0].split(maxsplit=1)[0].lower() != "smiles":
                yield record

    def rows(self, record: Record, source: SourceConfig, tasks: Tasks) -> list[Row]:
        """RowError if RDKit cannot read the SMILES."""
        (smiles,) = checked_fields(record, 1)
        return [smiles_span(smiles, names=True, selfies=source.selfies)]
