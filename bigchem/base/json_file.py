"""Strict, bounded reading of small JSON files that others wrote or that a power cut may have torn.

For every record of a run folder and every JSON file of the user; jsonl.py reads JSON Lines.
"""

import json
import math
import re
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from bigchem.base import git_lfs
from bigchem.base.errors import UserError
from bigchem.base.toml import SHOWN, quoted

MAX_BYTES = 1 << 24
"""An index of a thousand shards has a fifth of this."""
MAX_DIGITS = 300
"""Digits of an integer: any such fits into a float."""
MAX_CONFIG_BYTES = 1 << 20
"""Configurations of other programs have a few kilobytes."""
SYNTAX = "JSON has no comments and no comma before a closing bracket; strings and keys have double quotes"

Count = Annotated[int, Field(ge=0, le=10**15)]
"""Steps, ranks, process ids."""
Moment = Annotated[float, Field(ge=0, le=1e11)]
"""Seconds since 1970, within a calendar's range."""

T = TypeVar("T")
_adapter = cache(TypeAdapter)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class RecordError(UserError):
    """A file, or a line of one, is not a valid record: torn, or not one of bigchem's."""


def load(path: Path, *, max_bytes: int = MAX_BYTES, hint: str | None = None) -> Any:
    """The value in a JSON file. RecordError if it is longer than max_bytes, empty, not UTF-8, or not strict JSON;
    OSError if it cannot be opened. hint: what to do next."""
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise RecordError(f"longer than {max_bytes:,} bytes: not such a file", str(path), hint)
    return parse(content, str(path), hint=hint)


def load_object(path: Path, *, max_bytes: int = MAX_BYTES, hint: str | None = None) -> dict[str, Any]:
    """As `load`; RecordError if the value is not an object."""
    table = load(path, max_bytes=max_bytes, hint=hint)
    if not isinstance(table, dict):
        raise RecordError(f"not a JSON object but {kind_of(table)}", str(path), hint)
    return table


def load_config(path: Path, example: str) -> dict[str, Any]:
    """The table in another program's configuration. example: a valid one, for the hint. UserError unless it can be read
    and is a JSON object of at most MAX_CONFIG_BYTES."""
    where = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where) from None
    if len(content) > MAX_CONFIG_BYTES:
        raise UserError(f"not a configuration: more than {MAX_CONFIG_BYTES:,} bytes", where)
    table = parse(content, where, syntax=SYNTAX)
    if not isinstance(table, dict):
        what = f"not a configuration: the top of the file is {kind_of(table)}, not an object"
        raise UserError(what, where, f"for example: {example}")
    return table


def parse(content: bytes, where: str, *, hint: str | None = None, syntax: str | None = None) -> Any:
    """The value of JSON text. RecordError unless it is strict JSON: no NaN, Infinity, duplicate keys, lone surrogates,
    numbers beyond a float's range, or excessive nesting. where: the text's origin, for the message. syntax: the hint
    for a mistake in the syntax; default: hint."""
    if not content.strip(b"\0 \t\r\n"):
        what = "empty" if not content.strip() else "nothing but NUL bytes, as after a power cut"
        raise RecordError(what, where, hint)
    if content.startswith(git_lfs.BEGINS):
        raise RecordError(git_lfs.WHAT, where, git_lfs.HINT)
    if json.detect_encoding(content) in ("utf-16", "utf-16-le"):  # as PowerShell writes it
        raise RecordError("not UTF-8: it looks like UTF-16", where, "save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
            object_pairs_hook=_without_duplicates,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8: {error.reason} at byte {error.start}", where, hint) from None
    except UnicodeEncodeError:
        raise RecordError("not JSON: half of a surrogate pair", where, hint) from None
    except RecursionError:
        raise RecordError("not JSON: nested too deeply", where, hint) from None
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON: {error}", where, syntax or hint) from None
    except ValueError as error:
        raise RecordError(f"not JSON: {error}", where, hint) from None
    return value


def as_kind(kind: type[T], value: Any, where: str, *, hint: str | None = None) -> T:
    """A dataclass, or any type that pydantic knows, from its JSON value; RecordError with the field, the value and what
    is allowed. Unknown keys, which a later version may have added, are dropped."""
    try:
        found: T = _adapter(kind).validate_json(json.dumps(value), strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise RecordError(f"'{field}' is missing", where, hint) from None
        allowed = first["msg"].removeprefix("Input should be ")
        raise RecordError(f"'{field}' = {quoted(first['input'])}: should be {allowed}", where, hint) from None
    return found


def kind_of(value: object) -> str:
    """JSON's name of a value's type."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def shown(value: Any) -> str:
    """A value as JSON, cut after 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def number(value: object) -> float | None:
    """A finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 and math.isfinite(value) else None


def set_aside(path: Path) -> Path | None:
    """Copies a damaged file to NAME.damaged beside it before it is rewritten; returns the copy, or None if that
    fails."""
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    try:
        shutil.copy2(path, aside)
    except OSError:
        return None
    return aside


def report_set_aside(path: Path, what: str) -> None:
    """Sets a damaged file aside and reports it in one line on stdout."""
    aside = set_aside(path)
    copy = f"original: {aside.name}" if aside else "the original could not be copied"
    print(f"{path.parent.name}/{path.name}: {what}; {copy}", flush=True)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:SHOWN]} is beyond a float's range")
    return value


def _short(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text):,} digits")
    return int(text)


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {quoted(next(name for name in names if names.count(name) > 1))}")
    return table
