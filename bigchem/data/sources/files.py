"""Records of a source's files: lines and tables."""

from collections.abc import Collection, Iterator, Sequence

from bigchem.base.errors import UserError
from bigchem.data.reading.delimited import Layout, table_records
from bigchem.data.reading.lines import open_text
from bigchem.data.reading.paths import expand
from bigchem.data.sources.base import Record, SourceConfig
from bigchem.data.sources.rows import longest

TABS = Layout("\t")
COMMAS = Layout(",")
_SEPARATORS = {
    "\t": "tabs: format = 'tsv'",
    ";": "';': save it with commas (csv) or tabs (tsv)",
    "|": "'|': save it with commas (csv) or tabs (tsv)",
    ",": "commas: format = 'csv'",
}
"""What to do about a header that is one column with this character."""


def source_files(source: SourceConfig) -> list[str]:
    """The source's files; UserError if it names none."""
    if not source.path:
        raise UserError(f"format '{source.format}' needs a file", "sources", "add path = ... to this [[sources]] table")
    return expand(source.path)


def line_records(source: SourceConfig) -> Iterator[Record]:
    """One record of one field per non-blank line."""
    for path in source_files(source):
        for number, line in enumerate(open_text(path, longest(source), source.encoding), start=1):
            if line and not line.isspace():
                yield Record(path, number, (line,))


def column_records(
    source: SourceConfig, layout: Layout, columns: Sequence[str], optional: Collection[str] = ()
) -> Iterator[Record]:
    """The named columns of each record of the source's tables; "" for a missing optional one.

    UserError if a file's first line lacks one of the others. A record whose number of fields differs from the header's
    has no fields here, or only the one that is too long; `rows` refuses it.
    """
    limit = longest(source)
    layout = layout._replace(quoting=source.quoting)
    for path in source_files(source):
        table = table_records(open_text(path, limit, source.encoding), layout, limit, path)
        _, header = next(table, (1, []))
        places = [column_place(path, header, column, column in optional) for column in columns]
        for number, fields in table:
            if len(fields) == len(header):
                yield Record(path, number, tuple("" if place is None else fields[place] for place in places))
            else:
                yield Record(path, number, tuple(field for field in fields if len(field) > limit))


def column_place(where: str, header: Sequence[str], column: str, optional: bool = False) -> int | None:
    """A column's index; None for a missing optional one. UserError, which lists the columns, for any other."""
    if header.count(column) > 1:
        raise UserError(f"{header.count(column)} columns are called '{column}'", where, "rename one of them")
    if column in header:
        return header.index(column)
    if optional:
        return None
    found = ", ".join(name[:40] for name in header[:12]) or "none"
    more = f" and {len(header) - 12} more" if len(header) > 12 else ""
    raise UserError(f"no column '{column}'; there are: {found}{more}", where, _column_hint(header, column))


def _column_hint(header: Sequence[str], column: str) -> str:
    alike = [name for name in header if name.strip().lower() == column.lower()]
    if alike:
        return f"names must match exactly: write '{alike[0]}' in `columns`, or rename it in the file"
    if len(header) == 1:
        for separator, remedy in _SEPARATORS.items():
            if separator in header[0]:
                return f"its columns seem to be separated by {remedy}"
    return "is `format` right? `columns`, `where`, `split_column` and {NAME} in a prompt name columns"
