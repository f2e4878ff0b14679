"""Text to show: untrusted text made safe (no control characters or markup), numbers of things, CSV, Markdown."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

REPLACEMENT = "\ufffd"
"""Replaces characters that must not reach a terminal or a page."""


def printable(text: object, *, limit: int | None = None) -> str:
    """The text on one line: white space as blanks; escape sequences, NULs, bidirectional overrides and lone surrogates
    as U+FFFD. limit: characters; longer texts end with `...`."""
    found = "".join(c if c.isprintable() else " " if c.isspace() else REPLACEMENT for c in str(text))
    return found if limit is None or len(found) <= limit else found[: max(0, limit - 3)] + "..."


def one_line(error: BaseException) -> str:
    """The first line of an error's text, or its class if it has none; at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def number_of(noun: str, count: int) -> str:
    """`1 line`, `2 lines`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable_lines(text: str) -> str:
    """`printable` for each line."""
    return "\n".join(map(printable, text.split("\n")))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as CSV with a header; None is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_cell(text: object) -> str:
    """The text escaped so that Markdown reads it neither as HTML nor as the end of the cell."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, cell: Callable[[str], str] = markdown_cell
) -> str:
    """A Markdown table that ends with a newline. cell: escapes the text of a cell."""
    lines = [list(map(cell, head)), ["---"] * len(head), *(list(map(cell, map(str, row))) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markup(text: object) -> str:
    """The text escaped for rich's markup."""
    from rich.markup import escape

    return escape(printable(text))
