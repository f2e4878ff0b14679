"""Tables beside the predictions, training molecules and classes of reactions: columns found by their usual names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.data.reading.delimited import Fields, Layout, table_records
from bigchem.data.reading.lines import MAX_LINE, open_text

_SEPARATORS = "\t,;"


@dataclass(frozen=True)
class NamedColumns:
    """A table. header: as written. records: the later ones, each read once."""

    path: Path
    header: list[str]
    records: Iterator[Fields]

    def place(self, known: Sequence[str]) -> int | None:
        """The place of the first of these names, in lower case, that the header has in any case; None if it has none.
        UserError if several columns have that name."""
        names = [name.strip().lower() for name in self.header]
        found = next((name for name in known if name in names), None)
        if found is not None and names.count(found) > 1:
            what = f"{names.count(found)} columns are called '{found}'"
            raise UserError(what, f"{self.path}:1", "rename or remove all but one")
        return None if found is None else names.index(found)


def named_columns(path: Path) -> NamedColumns:
    """The table in a file, whose first line decides on tabs, commas or `;` as separator. Quotes, compression and byte
    order marks are read as those of data. UserError if the file cannot be read."""
    first = next(lines_of(path), "")
    layout = Layout(next((separator for separator in _SEPARATORS if separator in first), ","))
    if layout.separator == ";":
        layout = layout._replace(quoting="standard")
    records = table_records(open_text(str(path)), layout, MAX_LINE, str(path))
    _, header = next(records, (1, []))
    return NamedColumns(path, header, records)


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a file that are not blank. UserError if it cannot be read."""
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "no such file"
        raise UserError(what, str(path), "give a text file, plain or compressed")
    return (line for line in open_text(str(path)) if line and not line.isspace())
