"""Reading the source and the target of a row, by the task's record."""

import math
from collections.abc import Mapping

from bigchem.chemistry import NotationError, Reading, is_missing, one_compound, read, sections
from bigchem.data.sources.base import RowError
from bigchem.tasks import Task

MINUS = "\N{MINUS SIGN}"


def read_source(task: Task, text: str, *, selfies: bool = False, names: bool = False) -> Reading:
    """A source in its domain. selfies, names: as in chemistry.read. RowError if it is not valid."""
    return _read(text, task.source_domain, selfies, names)


def read_target(task: Task, text: str, *, selfies: bool = False) -> Reading:
    """A target in its domain: numbers with the task's decimals, labels as the task spells them. RowError if it is not
    valid."""
    if task.target_domain == "number":
        return Reading(number(text, task.decimals), ("minus",) if MINUS in text else ())
    if task.target_domain == "label":
        return label(text, task.labels)
    if task.target_domain == "labels":
        return labels(_values(text), task)
    return _read(text, task.target_domain, selfies, names=False)


def number(text: str, decimals: int | None) -> str:
    """A finite number with this many decimals; None: as it is written. RowError for anything else."""
    bare, value = text.strip(), finite(text)
    if value is None:
        raise RowError(_missing(bare) or f"not a number: '{bare[:40]}'")
    if decimals is None:
        return bare.replace(MINUS, "-")
    rounded = f"{value:.{decimals}f}"
    return rounded.removeprefix("-") if float(rounded) == 0 else rounded


def finite(text: str) -> float | None:
    """The finite number that a text is, in ASCII but for a minus sign U+2212; None for anything else."""
    bare = text.strip().replace(MINUS, "-")
    try:
        value = float(bare)
    except ValueError:
        return None
    return value if math.isfinite(value) and bare.isascii() and "_" not in bare else None


def label(text: str, known: tuple[str, ...]) -> Reading:
    """One of the known labels; a number may be spelled otherwise (1.0 for 1). RowError for anything else."""
    bare = text.strip()
    if bare in known:
        return Reading(bare)
    alike = [name for name in known if _same_number(name, bare) or name.lower() == bare.lower()]
    if len(alike) == 1:
        return Reading(alike[0], ("label",))
    raise RowError(_missing(bare) or f"not one of the labels {', '.join(known)}: '{bare[:40]}'")


def labels(values: Mapping[str, str], task: Task) -> Reading:
    """`NAME=VALUE; NAME=VALUE` in the task's order, VALUE 0 or 1; a missing value is left out. RowError for an unknown
    name or value, or if none is left."""
    if unknown := [name for name in values if name not in task.labels]:
        raise RowError(f"not a label of the task: '{unknown[0][:40]}'")
    found = {name: _binary(name, values[name]) for name in task.labels if not _missing(values.get(name, ""))}
    if not found:
        raise RowError("a missing text: no label has a value")
    respelled = any(values[name].strip() != value for name, value in found.items())
    return Reading("; ".join(f"{name}={value}" for name, value in found.items()), ("label",) if respelled else ())


def _values(text: str) -> dict[str, str]:
    """The values in `NAME=VALUE; NAME=VALUE`, by name. RowError for a part that is no such pair, or a name that stands
    twice."""
    found: dict[str, str] = {}
    for part in filter(str.strip, text.split(";")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals):
            raise RowError(_missing(text) or f"not NAME=VALUE: '{part.strip()[:40]}'")
        if name in found:
            raise RowError(f"a label with two values: '{name[:40]}'")
        found[name] = value
    return found


def molecules(task: Task, source: str, target: str) -> str | None:
    """What the leak filter compares: the molecules that a row is about, in bigchem's notation, joined by `.`.

    A molecule on one side, the product of a reaction; None if the row is about texts.
    """
    sides = ((task.source_domain, source), (task.target_domain, target))
    found = []
    for domain, text in sides:
        if domain == "chemistry" and text:
            # A product beside reactants may be several compounds; elsewhere dots are those of a salt.
            found.append(text if "reactants" in (task.source_domain, task.target_domain) else one_compound(text))
        elif domain == "reaction":
            found.append(sections(text)[2])
    return ".".join(found) or None


def _read(text: str, domain: str, selfies: bool, names: bool) -> Reading:
    if not is_unicode(text):
        raise RowError("not valid Unicode")
    try:
        return read(text, domain, names=names, selfies=selfies)
    except NotationError as error:
        raise RowError(str(error)) from None


def is_unicode(text: str) -> bool:
    """Whether it has no lone surrogate, as which bytes that are not UTF-8 are read."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _binary(name: str, text: str) -> str:
    value = {"yes": "1", "no": "0", "true": "1", "false": "0", "active": "1", "inactive": "0"}.get(text.strip().lower())
    found = value or next((known for known in ("0", "1") if _same_number(known, text)), None)
    if found is None:
        raise RowError(f"{name} is neither 0 nor 1: '{text[:40]}'")
    return found


def _missing(text: str) -> str | None:
    bare = text.strip()
    return f"a missing text: '{bare}'" if is_missing(bare) else None


def _same_number(one: str, other: str) -> bool:
    number = finite(one)
    return number is not None and number == finite(other)
