"""Markdown of texts that others wrote: one line, and shown as they are."""

import re
from collections.abc import Sequence

from bigchem.base.printable import printable


def cell(text: str) -> str:
    """A text for a cell or a sentence: one line, without markup."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(printable(text).split()))


def code(text: str) -> str:
    """A text as code, which may stand in a table: one line, whatever ticks and bars it has."""
    plain = printable(text).replace("|", "\\|")
    ticks = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{ticks} {plain} {ticks}" if len(ticks) > 1 else f"`{plain}`"


def table_of(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head."""
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *others])
