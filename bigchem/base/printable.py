"""Makes untrusted text safe to show: no control characters and, for rich, no markup."""

from __future__ import annotations

REPLACEMENT = "\ufffd"
"""Replaces characters that must not reach a terminal or a page."""


def printable(text: object, *, limit: int | None = None) -> str:
    """The text on one line: white space as blanks; escape sequences, NULs, bidirectional overrides and lone surrogates
    as U+FFFD. limit: characters; longer texts end with `...`."""
    found = "".join(c if c.isprintable() else " " if c.isspace() else REPLACEMENT for c in str(text))
    return found if limit is None or len(found) <= limit else found[: max(0, limit - 3)] + "..."


def number_of(noun: str, count: int) -> str:
    """`1 line`, `2 lines`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable_lines(text: str) -> str:
    """`printable` for each line."""
    return "\n".join(map(printable, text.split("\n")))


def markup(text: object) -> str:
    """The text escaped for rich's markup."""
    from rich.markup import escape

    return escape(printable(text))
