"""The columns of a table of predictions: by their usual names, by given ones, or by their numbers.

A recognised name may stand in another case. Columns of the k best are told by the numbers in their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.base.toml import quoted

COLUMNS: dict[str, tuple[str, ...]] = {
    "source": ("SMILES", "description", "source", "original_smiles", "input", "src"),
    "target": ("ground truth", "target", "target_smiles", "references", "reference"),
    "prediction": ("output", "predictions", "prediction"),
}
"""Recognised column names of each role: MolT5's, bigchem's, Chemformer's."""
LOG_PROBABILITIES = "label_log_probabilities"
LOSS_AND_TOKENS = "loss_and_tokens"
NUMBERS = {
    LOG_PROBABILITIES: "one for each of the task's labels",
    LOSS_AND_TOKENS: "the target's summed cross-entropy and its number of tokens",
}
"""The optional columns of lists of numbers, and what is in a list."""
EXTRA = ("key", *NUMBERS)
ROLES = (*COLUMNS, *EXTRA)
_SERIES = ("prediction", "pred", "output", "candidate", "cand_precursor", "hypothesis", "beam")
"""Prefixes of numbered columns of the k best: prediction_0, prediction_1, ..."""


def positions(
    header: list[str], named: Mapping[str, str], where: str
) -> tuple[int, list[int], list[int], list[int | None]]:
    """Positions of source, references, predictions and EXTRA. named: given names by role. UserError if a column is
    missing, or if several have its name."""
    header = _usual_case(header, where)
    found = {role: _named(header, named.get(role), role, where) for role in COLUMNS}
    if not found["prediction"] and "prediction" not in named:
        found["prediction"] = next(filter(None, (_series(header, f"{name}_*", where) for name in _SERIES)), [])
    for role, places in found.items():
        if not places:
            names = [named[role]] if role in named else COLUMNS[role]
            hint = f"the header is {quoted(header, limit=400)}; name the column: --column {role}=NAME"
            raise UserError(f"no column {' or '.join(map(repr, names))}", where, hint)
    (source, *_), target, ranked = found.values()
    return source, target, ranked, [_extra(header, named, role, where) for role in EXTRA]


def _extra(header: list[str], named: Mapping[str, str], role: str, where: str) -> int | None:
    """The position of a column that may be missing: those of numbers by their own name, a key only where named."""
    name = named.get(role, role if role in NUMBERS else None)
    if name is None or (name not in header and role not in named):
        return None
    if name not in header:
        raise UserError(f"no column '{name}'", where, f"the header is {quoted(header, limit=400)}")
    return _only(header, name, where)


def _usual_case(header: list[str], where: str) -> list[str]:
    """The header with recognised names as COLUMNS spells them: `Source` is source unless there is a column source."""
    usual = {name.lower(): name for names in COLUMNS.values() for name in names}
    found = [usual.get(column.strip().lower(), column) for column in header]
    respelled = {column: name for column, name in zip(header, found, strict=True) if name not in (column, *header)}
    if respelled:
        words = ", ".join(f"{column!r} as {name!r}" for column, name in respelled.items())
        Progress().say(f"{where}: read {words}")
    return [respelled.get(column, column) for column in header]


def _named(header: list[str], name: str | None, role: str, where: str) -> list[int]:
    """Positions of a named column, several for a name with *; without a name, of a recognised one."""
    if name is not None and "*" in name:
        return _series(header, name, where)
    names = COLUMNS[role] if name is None else (name,)
    present = [column for column in names if column in header]
    if len(present) > 1 and role != "source":
        raise UserError(f"'{present[0]}' or '{present[1]}'?", where, f"say which is the {role}: --column {role}=NAME")
    return [_only(header, column, where) for column in present[:1]]


def _only(header: list[str], column: str, where: str) -> int:
    """The position of a column; UserError if several have its name."""
    if header.count(column) > 1:
        raise UserError(f"{header.count(column)} columns are called '{column}'", where, "rename or remove all but one")
    return header.index(column)


def _series(header: list[str], name: str, where: str) -> list[int]:
    """Positions of the columns that match, by ascending number at the *: from 0 or 1, without gaps."""
    pattern = re.compile(re.escape(name).replace(r"\*", r"(\d{1,4})").replace("_", "_?"))
    numbered = dict[int, int]()
    for place, column in enumerate(header):
        if match := pattern.fullmatch(column):
            first = header[numbered.setdefault(int(match[1]), place)]
            if numbered[int(match[1])] != place:
                what = f"'{first}' and '{column}' have one number"
                raise UserError(what, where, "rename or remove all but one")
    ordered = sorted(numbered)
    complete = bool(ordered) and ordered[0] <= 1 and ordered == list(range(ordered[0], ordered[0] + len(ordered)))
    return [numbered[number] for number in ordered] if complete else []
