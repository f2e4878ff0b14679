"""A configuration of somebody else's from the disk: strict JSON, bounded. Pure."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from bigchem.base.errors import UserError

MOST_BYTES = 1 << 20
"""Real files have a few kilobytes."""


def read(path: Path, example: str) -> dict[str, Any]:
    """The file's table. example: of one, for who has another thing. UserError unless it is JSON with an object at its
    top, finite numbers, no key twice in one object, and at most MOST_BYTES long."""
    where = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where) from None
    if len(raw) > MOST_BYTES:
        raise UserError(f"has more than {MOST_BYTES:,} bytes: no configuration", where)
    try:
        table = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        hint = "JSON has no comments and no comma before a closing bracket; strings and keys have double quotes"
        raise UserError(f"not JSON: {error}", where, hint) from None
    except RecursionError:
        raise UserError("not a configuration: nested too deeply", where) from None
    except ValueError as error:  # UnicodeDecodeError, numbers with thousands of digits, and the hooks' own
        raise UserError(f"not JSON: {error}", where) from None
    if not isinstance(table, dict):
        what = f"not a configuration: the top of the file is {kind_of(table)}, not an object"
        raise UserError(what, where, f"an example is {example}")
    return table


def kind_of(value: Any) -> str:
    """What JSON calls a value."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def shown(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        twice = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the same key twice in one object: {', '.join(map(repr, twice[:5]))}")
    return table


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")
