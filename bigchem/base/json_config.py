"""Strict reading of small JSON configurations of other programs. Pure."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from bigchem.base.errors import UserError

MAX_BYTES = 1 << 20
"""Real files have a few kilobytes."""


def read(path: Path, example: str) -> dict[str, Any]:
    """The file's table. example: a valid one, for the hint. UserError unless the file is a JSON object of at most
    MAX_BYTES with finite numbers and no duplicate keys."""
    where = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where) from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"not a configuration: more than {MAX_BYTES:,} bytes", where)
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
        raise UserError(what, where, f"for example: {example}")
    return table


def kind_of(value: Any) -> str:
    """JSON's name of a value's type."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def shown(value: Any) -> str:
    """A value as JSON, cut after 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        twice = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"duplicate keys in one object: {', '.join(map(repr, twice[:5]))}")
    return table


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
