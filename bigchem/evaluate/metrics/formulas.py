"""Metrics of molecular formulas such as `C6H5O7-3`: what they are made of, however it is ordered."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem

Floats = NDArray[np.float64]

COLUMNS = ("parses", "valid", "exact", "elements", "atoms")
"""Columns of compare: whether the reference and the prediction parse, whether they are the same, the share of their
elements with the right count, and the F1 of their atoms."""
_FORMULA = re.compile(r"((?:[A-Z][a-z]?[0-9]{0,6})+)(?:([+-])([0-9]{0,3}))?")
_PART = re.compile(r"([A-Z][a-z]?)([0-9]*)")


class Formula(NamedTuple):
    """Atoms by element, and the charge."""

    atoms: Counter[str]
    charge: int


def parse(text: str) -> Formula | None:
    """The formula that a text is, elements in any order and as often as they like; None for anything else, such as
    unknown elements, brackets and dots. Surrounding white space is ignored."""
    found = _FORMULA.fullmatch(text.strip())
    if found is None:
        return None
    atoms = Counter[str]()
    for element, count in _PART.findall(found[1]):
        atoms[element] += int(count or 1)
    if not atoms.keys() <= _elements() or not +atoms:
        return None
    return Formula(+atoms, int(f"{found[2]}{found[3] or 1}") if found[2] else 0)


def compare(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """[pairs, COLUMNS]. Shares are 0 if the prediction does not parse, NaN if the reference does not; two equal texts
    are the same."""
    rows = [_compare(reference.strip(), made.strip()) for reference, made in zip(references, predictions, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS))


def _compare(reference: str, prediction: str) -> tuple[float, ...]:
    wanted, made = parse(reference), parse(prediction)
    if wanted is None:
        return (0.0, made is not None, reference == prediction, np.nan, np.nan)
    if made is None:
        return (1.0, 0.0, 0.0, 0.0, 0.0)
    elements = wanted.atoms.keys() | made.atoms.keys()
    right = sum(wanted.atoms[element] == made.atoms[element] for element in elements)
    shared = (wanted.atoms & made.atoms).total()
    atoms = 2 * shared / (wanted.atoms.total() + made.atoms.total())
    return (1.0, 1.0, wanted == made, right / len(elements), atoms)


@cache
def _elements() -> frozenset[str]:
    table = Chem.GetPeriodicTable()
    return frozenset((*(table.GetElementSymbol(number) for number in range(1, 119)), "D", "T"))
