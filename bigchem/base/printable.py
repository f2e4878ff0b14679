"""Text that others wrote, as it may be shown: without control characters and, for rich, without markup."""

from __future__ import annotations

LOST = "\ufffd"
"""Stands for a character that must not reach a terminal or a page."""


def printable(text: object, *, most: int | None = None) -> str:
    """The text on one line: white space as blanks; escape sequences, NULs, bidirectional overrides and lone surrogates
    as U+FFFD. most: longer texts end with `...`."""
    found = "".join(c if c.isprintable() else " " if c.isspace() else LOST for c in str(text))
    return found if most is None or len(found) <= most else found[: max(0, most - 3)] + "..."


def printable_lines(text: str) -> str:
    """The same of each line."""
    return "\n".join(map(printable, text.split("\n")))


def markup(text: object) -> str:
    """The text for a cell or a line that rich prints with markup on: nothing in it is read as markup."""
    from rich.markup import escape

    return escape(printable(text))
