"""The strict loader of every TOML file: runs, builds, sweeps, clusters.

`--set section.key=value` overrides a field; the resolved configuration can be written and read back. Unknown keys are
refused with the nearest known name; errors name the field, its value and what is allowed.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin

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
    replaces: ClassVar[Mapping[str, str]] = {}
    """Dotted fields that exclude each other: overriding the first removes the second."""


LONGEST_FIELD = 300
"""Characters of a dotted field's name."""
SHOWN = 80
"""Characters of a wrong value that a message quotes."""
LISTED = 10
"""Errors of one file that a message lists."""
S = TypeVar("S", bound=Section)


def load(kind: type[S], path: str | Path, overrides: Sequence[str] = ()) -> S:
    """Reads a TOML file, applies `section.key=value` overrides and validates it."""
    table = read_table(path)
    for override in overrides:
        put_instead(kind, table, *parse_override(override), "--set")
    return validate(kind, table, str(path))


def overridden(section: S, overrides: Sequence[str]) -> S:
    """The section with `section.key=value` overrides."""
    kind, table = type(section), section.model_dump()
    for override in overrides:
        put_instead(kind, table, *parse_override(override), "--set")
    return validate(kind, table, "--set")


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


def put_instead(kind: type[Section], table: dict[str, Any], field: str, value: Any, where: str) -> None:
    """Sets a dotted field of a nested table, and removes the one that it replaces in a section of this kind."""
    put(table, field, value, where)
    path, _, last = kind.replaces.get(field, "").rpartition(".")
    if last:
        table[path].pop(last, None)


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table as dotted fields: the inverse of `put`."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        out.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return out


def validate(kind: type[S], table: dict[str, Any], where: str, *, text: bool = False) -> S:
    """Builds a section from a table; one UserError lists all errors, a line each.

    text: convert the values from text, as in a CSV.
    """
    try:
        # As JSON, where strict has the right meaning: "3" and true are not integers, 3 is a number, a list is a tuple.
        return kind.model_validate_json(json.dumps(table, default=str), strict=not text)
    except ValidationError as error:
        raise _refusal(_mistakes(kind, table, error.errors()), where) from None


def dump(section: Section) -> str:
    """The section as TOML text that `load` reads back to an equal section. Fields that are None are omitted."""
    return tomli_w.dumps(section.model_dump(mode="json", exclude_none=True))


def quoted(value: object, limit: int = SHOWN) -> str:
    """A value for a message: one line of at most `limit` characters."""
    text = repr(value[: 2 * limit]) if isinstance(value, str | bytes) else repr(value)
    return printable(text, limit=limit)


class _Mistake(NamedTuple):
    """place: a table, or a field with its value; "" for the top of the file. hint: what to do."""

    place: str
    problem: str
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}" if self.place else self.problem


def _refusal(mistakes: list[_Mistake], where: str) -> UserError:
    if len(mistakes) == 1:
        return UserError(str(mistakes[0]), where, mistakes[0].hint)
    lines = [
        # A field's documentation, on every line, would bury the mistakes.
        f"  {found}" + (f" ({found.hint})" if found.hint and found.problem.startswith("unknown key") else "")
        for found in mistakes[:LISTED]
    ]
    more = [f"  and {len(mistakes) - LISTED} more"] if len(mistakes) > LISTED else []
    return UserError("\n".join([f"{len(mistakes)} errors", *lines, *more]), where)


def _mistakes(kind: type[Section], table: dict[str, Any], errors: Sequence[ErrorDetails]) -> list[_Mistake]:
    """What is wrong, in pydantic's order. The alternatives of one value are joined: should be A or B."""
    within = [error["loc"] for error in errors]
    found: dict[tuple[str, str], _Mistake] = {}
    for error in errors:
        loc = error["loc"]
        if error["type"] == "too_short" and any(loc == other[: len(loc)] != other for other in within):
            continue  # a list counts as empty because its element is refused
        mistake = _mistake(kind, table, error)
        should_be = mistake.problem.startswith("should be ")
        key = mistake.place, "" if should_be else mistake.problem
        if should_be and key in found:
            either = f"{found[key].problem} or {mistake.problem.removeprefix('should be ')}"
            mistake = mistake._replace(problem=either)
        found[key] = mistake
    return list(found.values())


def _mistake(kind: type[Section], table: dict[str, Any], error: ErrorDetails) -> _Mistake:
    loc = _in_table(table, error)
    inside, last = _place(loc[:-1]), str(loc[-1]) if loc else ""
    if error["type"] == "extra_forbidden":
        section = _section_at(kind, loc[:-1])
        hint = nearest(last, list(section.model_fields) if section else [])
        if section is not kind and last in kind.model_fields:
            hint = f"'{last}' belongs at the top of the file, before the first table"
        return _Mistake(inside, f"unknown key `{_place(loc[-1:])}`", hint)
    if error["type"] == "missing":
        inside, last = (inside, last) if isinstance(loc[-1], str) else ("", _place(loc))
        return _Mistake(inside, f"`{last}` is missing", _doc(kind, loc) or "add it")
    allowed = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if error["type"] == "value_error":
        return _Mistake(_place(loc), allowed)
    if error["loc"][-1:] == ("[key]",):
        return _Mistake(inside, f"unknown key `{_place(loc[-1:])}`", f"it should be {allowed}")
    return _Mistake(f"{_place(loc)} = {quoted(error['input'])}", f"should be {allowed}", _doc(kind, loc))


def _in_table(table: dict[str, Any], error: ErrorDetails) -> tuple[int | str, ...]:
    """The location of an error without pydantic's names for the members of a union, which are not in the table."""
    value: Any = table
    loc: list[int | str] = []
    for part in error["loc"]:
        known = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if known:
            value = value[part]
        if known or (error["type"] == "missing" and part == error["loc"][-1]):
            loc.append(part)
    return tuple(loc)


def _place(loc: tuple[int | str, ...]) -> str:
    """A location as one writes it: `sources[0].path`."""
    place = ""
    for part in loc:
        name = printable(part, limit=SHOWN)
        if isinstance(part, int):
            place += f"[{part}]"
        else:
            name = name if re.fullmatch(r"[\w-]+", name) else json.dumps(name, ensure_ascii=False)
            place += f".{name}" if place else name
    return place


def _section_at(kind: type[Section], loc: tuple[int | str, ...]) -> type[Section] | None:
    """The Section class that a pydantic location points into."""
    current: type[Section] | None = kind
    names_a_table = False
    for part in loc:
        if isinstance(part, int) or current is None:
            continue
        if names_a_table:  # `x` in tasks.x, a table of tables
            names_a_table = False
            continue
        info = current.model_fields.get(part)
        current = None if info is None else _section_in(info.annotation)
        names_a_table = info is not None and get_origin(info.annotation) is dict
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
