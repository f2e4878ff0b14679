"""Two text files, line by line: procedures and their actions, as paragraph2actions and OpenNMT have them."""

from __future__ import annotations

from collections.abc import Iterator

from bigchem.data.sources.base import Record, Row, SourceConfig
from bigchem.data.sources.files import open_text, source_path
from bigchem.data.sources.rows import checked_fields, make_row, wanted
from bigchem.errors import UserError


class ParallelText:
    """`path` has the procedures, `target_path` the actions; line n of one belongs to line n of the other."""

    tasks: tuple[str, ...] = ("actions",)

    def records(self, source: SourceConfig) -> Iterator[Record]:
        """Fields: source line, target line. UserError if the files differ in length: every pair could be wrong."""
        path, target_path = source_path(source), source.target_path
        if target_path is None:
            raise UserError("parallel_text needs two files", path, "add target_path = ... to this [[sources]] table")
        lines, target_lines = (sum(1 for _ in open_text(file)) for file in (path, target_path))
        if lines != target_lines:
            raise UserError(
                f"{lines} lines, but {target_lines} in {target_path}", path, "the two files must be parallel"
            )
        pairs = zip(open_text(path), open_text(target_path), strict=True)
        for number, pair in enumerate(pairs, start=1):
            yield Record(path, number, pair)

    def rows(self, record: Record, source: SourceConfig) -> list[Row]:
        """One row."""
        text, actions = checked_fields(record, 2)
        return wanted(source, [make_row("actions", text, actions)])
