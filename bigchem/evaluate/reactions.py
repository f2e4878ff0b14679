"""Metrics of reactions: where in a k-best list the right molecules stand."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bigchem.chemistry import comparable, dotted, try_parse, without_maps
from bigchem.evaluate import molecules

Floats = NDArray[np.float64]

COLUMNS = ("parses", "valid", "invalid", "rank", "rank_nostereo", "rank_maxfrag")
"""The columns of ranks: whether the reference parses, whether the best prediction does, the share of the k predictions
that does not, and three ranks."""
SIMILARITIES = molecules.COLUMNS[2:]
"""The columns of molecules.compare but for what COLUMNS has, of the best prediction."""
_STEREO = re.compile(r"[@/\\]")
_ALIKE = {"exact": 1.0, "maccs": 1.0, "rdk": 1.0, "morgan": 1.0}
_ATOM = re.compile(r"\[[^\]]*\]|Br|Cl|[BCNOPSFIbcnops*]")
_HYDROGEN = re.compile(r"\[[0-9]*H[0-9]*[+-]*[0-9]*\]")


def canonical(smiles: str) -> tuple[str, str] | None:
    """Canonical SMILES with and without stereochemistry, by chemistry.comparable; None where it does not parse.

    `~`, which joins the fragments of one compound in bigchem's and the paper's reactions, counts as a dot.
    """
    text = without_maps(dotted(smiles))
    molecule = try_parse(text)
    if molecule is None:
        return None
    whole = comparable(molecule, written=text)
    # Most molecules have no stereochemistry, and writing and reading them again is most of the time.
    return whole, comparable(molecule, stereo=False) if _STEREO.search(whole) else whole


def largest(canonical_smiles: str) -> str:
    """The fragment with most heavy atoms; of several, the longest and then the last by its characters."""
    return max(canonical_smiles.split("."), key=lambda fragment: (_heavy_atoms(fragment), len(fragment), fragment))


def ranks(references: Sequence[str], predictions: Sequence[Sequence[str]], similar: bool = False) -> Floats:
    """[rows, COLUMNS], and SIMILARITIES behind if `similar`.

    A rank is the position (0: best) of the first prediction that is the reference. It is infinite where there is none.
    Predictions that are no SMILES or are repeated keep their places. rank_maxfrag compares the largest fragments only.

    Similarities are molecules.compare of the best prediction, of all fragments together. Fingerprints take ten times as
    long as canonical SMILES: where these agree, the two are alike without any.
    """
    columns = len(COLUMNS) + similar * len(SIMILARITIES)
    rows = [_ranks(*row, similar) for row in zip(references, predictions, strict=True)]
    return np.array(rows).reshape(-1, columns)


def ways_back(sources: Sequence[str], tried: Sequence[tuple[Sequence[str], Sequence[str]]]) -> NDArray[np.float64]:
    """Round trips of k-best lists: [rows, 3]: predictions tried, those from which the source comes back, and different
    sets of reactants among the latter.

    tried: per row, predictions and what a forward model makes of each.
    """
    rows = np.zeros((len(sources), 3))
    for row, source, (predictions, products) in zip(rows, sources, tried, strict=True):
        wanted = canonical(source)
        back = [
            canonical(prediction)
            for prediction, product in zip(predictions, products, strict=True)
            if wanted is not None and (made := canonical(product)) is not None and made[0] == wanted[0]
        ]
        row[:] = len(predictions), len(back), len({one[0] for one in back if one is not None})
    return rows


def _ranks(reference: str, predictions: Sequence[str], similar: bool) -> tuple[float, ...]:
    wanted = _forms(reference)
    predicted = [_forms(prediction) for prediction in predictions]
    valid = predicted[0] is not None
    invalid = predicted.count(None) / len(predicted)
    more = _similarities(reference, predictions[0], wanted is not None and wanted == predicted[0]) if similar else ()
    if wanted is None:
        return (0.0, valid, invalid, np.inf, np.inf, np.inf, *more)
    hits = [[one is not None and one[i] == wanted[i] for one in predicted] for i in range(3)]
    return (1.0, valid, invalid, *(hit.index(True) if True in hit else np.inf for hit in hits), *more)


def _similarities(reference: str, prediction: str, alike: bool) -> tuple[float, ...]:
    if alike:
        return tuple(_ALIKE.get(name, 0.0) for name in SIMILARITIES)
    sides = [[without_maps(dotted(side))] for side in (reference, prediction)]
    return tuple(molecules.compare(*sides)[0, 2:])


def _forms(smiles: str) -> tuple[str, str, str] | None:
    """What the ranks compare: canonical, and the largest fragment of the first."""
    found = canonical(smiles)
    return None if found is None else (*found, largest(found[0]))


def _heavy_atoms(fragment: str) -> int:
    return sum(_HYDROGEN.fullmatch(atom) is None for atom in _ATOM.findall(fragment))
