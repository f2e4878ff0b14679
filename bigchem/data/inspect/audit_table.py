"""An audit as a table, followed by lost and longest texts."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bigchem.base.printable import markup
from bigchem.base.progress import tables

SHOWN = 100
"""Characters shown of a long text."""


def print_audit(found: list[dict[str, Any]]) -> None:
    """Prints the figures of bigchem.data.inspect.audit.audit."""
    several = len({row["data"] for row in found}) > 1
    table = Table(title="all rows, duplicates included; lengths with prompt and end token", title_justify="left")
    for name in (["data"] if several else []) + ["split", "task", "side"]:
        table.add_column(name)
    for name in ("texts", "exact", "lost", "with unk", "unk/token", "token/char", "token/text"):
        table.add_column(name, justify="right")
    for name in ("p50", "p90", "p99", "max", "too long"):
        table.add_column(name, justify="right")
    for row in found:
        table.add_row(*([markup(row["data"])] if several else []), *_cells(row))
    console = tables()
    console.print(table)
    for row in found:
        where = " ".join(row[name] for name in ("data", "split", "task", "side") if row[name])
        for lost in row["lost"]:
            console.print(markup(f"lost: {where}: at {lost['at']}: {lost['expected']!r} became {lost['found']!r}"))
        for longest in row["longest"]:
            text = longest["text"]
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
            console.print(markup(f"longest: {where}: {longest['tokens']} tokens: {shown!r}"))


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["split"],
        row["task"],
        row["side"],
        f"{row['texts']:,}",
        share_exact(row["texts"], row["not_exact"]),
        f"{row['not_exact']:,}",
        f"{row['with_unknown']:,}",
        f"{row['unknown_rate']:.3%}",
        f"{row['tokens_per_character']:.3f}",
        f"{row['tokens_per_text']:.1f}",
        *(f"{row[name]:,}" for name in ("p50", "p90", "p99", "max")),
        f"{row['over']:,} > {row['limit']}" if row["over"] else "0",
    ]


def share_exact(texts: int, not_exact: int) -> str:
    """A percentage that is 100 only if all are exact."""
    share = 100 * (texts - not_exact) / texts
    return "100 %" if not not_exact else f"{min(share, 99.99):.2f} %"
