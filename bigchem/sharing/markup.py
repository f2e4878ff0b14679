"""Markdown of texts that others wrote: one line, and shown as they are."""

import re
from collections.abc import Iterable, Sequence

from bigchem.base.printable import markdown_table, printable


def cell(text: str) -> str:
    """A text for a cell or a sentence: one line, without markup."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(printable(text).split()))


def code(text: str) -> str:
    """A text as code, which may stand in a table: one line, whatever ticks and bars it has."""
    plain = printable(text).replace("|", "\\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{ticks} {plain} {ticks}" if len(ticks) > 1 else f"`{plain}`"


def table_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, without the last line's end. Cells stay as they are: `cell` or `code` has made them."""
    return markdown_table(head, rows, cell=str).rstrip("\n")
