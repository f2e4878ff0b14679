"""The strict loader of every TOML file: runs, builds, sweeps, clusters.

`--set section.key=value` overrides a field; the resolved configuration can be written and read back. Unknown keys are
refused with the nearest known name; errors name the field, its value and what is allowed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from bigchem.base.errors import UserError, nearest
from bigchem.base.printable import printable

MAX_BYTES = 1 << 20
"""Size of a TOML file."""
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A table of a TOML file: no unknown keys, no silent conversions, immutable.

    The docstring below a field is its documentation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


LONGEST_FIELD = 300
"""Characters of a dotted field's name."""
SHOWN = 80
"""Characters of a wrong value that a message quotes."""
S = TypeVar("S", bound=Section)


def load(kind: type[S], path: str | Path, overrides: Sequence[str] = ()) -> S:
    """Reads a TOML file, applies `section.key=value` overrides and validates it."""
    table = read_table(path)
    for override in overrides:
        apply_override(table, override)
    return validate(kind, table, str(path))


def read_table(path: str | Path) -> dict[str, Any]:
    """A TOML file as a nested table."""
    file = Path(path)
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError("no such file", str(file)) from None
    except IsADirectoryError as error:
        raise UserError(f"not a TOML file: {error}", str(file)) from None
    if len(content) > MAX_BYTES:
        raise UserError(f"not a configuration: longer than {MAX_BYTES:,} bytes", str(file))
    try:
        table = tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except RecursionError:
        raise UserError("not a configuration: nested too deeply", str(file)) from None
    except ValueError as error:  # TOML, UTF-8, or an integer of thousands of digits
        raise UserError(f"not a TOML file: {printable(error, limit=200)}", str(file)) from None
    for field in flat(table):
        if len(field) > LONGEST_FIELD:
            raise UserError(f"a field of {len(field):,} characters: {quoted(field)}", str(file))
    return table


def apply_override(table: dict[str, Any], override: str) -> None:
    """Sets one field of a nested table from `section.key=value`. The value is TOML; a bare word is a string."""
    put(table, *parse_override(override), "--set")


def parse_override(override: str, where: str = "--set", example: str = "train.steps=300") -> tuple[str, Any]:
    """The dotted field and the value of `section.key=value`. The value is TOML; a bare word is a string."""
    name, separator, text = override.partition("=")
    if not separator or not all(name.strip().split(".")):
        raise UserError(f"cannot read '{override}'", where, f"write section.key=value, as in {where} {example}")
    try:
        return name.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), text


def put(table: dict[str, Any], field: str, value: Any, where: str) -> None:
    """Sets a dotted field of a nested table."""
    *path, last = field.split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UserError(f"'{part}' in '{field}' is not a section", where)
    table[last] = value


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table as dotted fields: the inverse of `put`."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        out.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return out


def validate(kind: type[S], table: dict[str, Any], where: str, *, text: bool = False) -> S:
    """Builds a section from a table; one UserError of at most three lines names all errors.

    text: convert the values from text, as in a CSV.
    """
    try:
        # As JSON, where strict has the right meaning: "3" and true are not integers, 3 is a number, a list is a tuple.
        return kind.model_validate_json(json.dumps(table, default=str), strict=not text)
    except ValidationError as error:
        found = error.errors()
        what, hint = _explain(kind, found[0])
        if len(found) > 1:
            others = ", ".join(_dotted(e) for e in found[1:4])
            hint = f"{hint or 'fix it'} (and {len(found) - 1} more: {others})"
        raise UserError(what, where, hint) from None


def dump(section: Section) -> str:
    """The section as TOML text that `load` reads back to an equal section. Fields that are None are omitted."""
    return tomli_w.dumps(section.model_dump(mode="json", exclude_none=True))


def _dotted(error: ErrorDetails) -> str:
    return ".".join(printable(part, limit=SHOWN) for part in error["loc"])


def quoted(value: object, limit: int = SHOWN) -> str:
    """A value for a message: one line of at most `limit` characters."""
    text = repr(value[: 2 * limit]) if isinstance(value, str | bytes) else repr(value)
    return printable(text, limit=limit)


def _explain(kind: type[Section], error: ErrorDetails) -> tuple[str, str | None]:
    field = _dotted(error)
    if error["type"] == "extra_forbidden":
        name, section = str(error["loc"][-1]), _section_at(kind, error["loc"][:-1])
        if section is not kind and name in kind.model_fields:
            return f"unknown key '{field}'", f"'{name}' belongs at the top of the file, before the first table"
        return f"unknown key '{field}'", nearest(name, list(section.model_fields) if section else [])
    if error["type"] == "missing":
        return f"'{field}' is missing", "add it"
    allowed = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"[{field}] {allowed}" if field else allowed, None
    return f"'{field}' = {quoted(error['input'])}: should be {allowed}", _doc(kind, error["loc"])


def _section_at(kind: type[Section], loc: tuple[int | str, ...]) -> type[Section] | None:
    """The Section class that a pydantic location points into."""
    current: type[Section] | None = kind
    for part in loc:
        if isinstance(part, int) or current is None:
            continue
        info = current.model_fields.get(part)
        current = None if info is None else _section_in(info.annotation)
    return current


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _section_in(arg))), None)


def _doc(kind: type[Section], loc: tuple[int | str, ...]) -> str | None:
    names = [part for part in loc if isinstance(part, str)]
    for end in range(len(names), 0, -1):
        section = _section_at(kind, tuple(names[: end - 1]))
        if section and names[end - 1] in section.model_fields:
            text = section.model_fields[names[end - 1]].description
            return None if text is None else f"{names[end - 1]}: {' '.join(text.split())}"
    return None
