"""Metrics of reactions: the rank of the reference in a k-best list, and round trips."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem

from bigchem.chemistry import REMEMBERED, comparable, dotted, without_maps
from bigchem.evaluate.metrics import molecules

Floats = NDArray[np.float64]

COLUMNS = ("parses", "valid", "invalid", "rank", "rank_nostereo", "rank_maxfrag")
"""Columns of ranks: whether the reference and the best prediction parse, the share of the k predictions that does not,
and three ranks."""
EXACT = molecules.MATCH
SIMILARITIES = molecules.SIMILARITIES
_STEREO = re.compile(r"[@/\\]")
_SAME, _ALIKE = (1.0, 0.0), (0.0, 1.0, 1.0, 1.0)
"""EXACT and SIMILARITIES for equal canonical SMILES."""
_ATOM = re.compile(r"\[[^\]]*\]|Br|Cl|[BCNOPSFIbcnops*]")
_HYDROGEN = re.compile(r"\[[0-9]*H[0-9]*[+-]*[0-9]*\]")


def canonical(smiles: str) -> tuple[str, str] | None:
    """Canonical SMILES with and without stereochemistry, by chemistry.comparable; None if it does not parse.

    `~`, which joins the fragments of one compound in bigchem's and the paper's reactions, is read as a dot.
    """
    side = _side(smiles)
    return None if side is None else (side.whole, side.flat)


def largest(canonical_smiles: str) -> str:
    """The fragment with the most heavy atoms; ties go to the longest, then to the last in string order."""
    return max(canonical_smiles.split("."), key=lambda fragment: (_heavy_atoms(fragment), len(fragment), fragment))


def ranks(
    references: Sequence[str], predictions: Sequence[Sequence[str]], exact: bool = False, similar: bool = False
) -> Floats:
    """[rows, COLUMNS], followed by EXACT if `exact` and SIMILARITIES if `similar`.

    A rank is the position (0: best) of the first prediction that equals the reference, infinite if none does. Invalid
    and repeated predictions keep their positions. rank_maxfrag compares only the largest fragments.

    EXACT and SIMILARITIES are of the best prediction, over all fragments. InChI and fingerprints are skipped for equal
    canonical SMILES: each takes longer than everything else, fingerprints ten times as long.
    """
    columns = len(COLUMNS) + exact * len(EXACT) + similar * len(SIMILARITIES)
    rows = [_ranks(*row, exact, similar) for row in zip(references, predictions, strict=True)]
    return np.array(rows).reshape(-1, columns)


def round_trips(sources: Sequence[str], tried: Sequence[tuple[Sequence[str], Sequence[str]]]) -> NDArray[np.float64]:
    """Round trips of k-best lists, [rows, 3]: predictions tried, those that lead back to the source, and the distinct
    sets of reactants among the latter.

    tried: per row, the predictions and a forward model's product for each.
    """
    rows = np.zeros((len(sources), 3))
    for row, source, (predictions, products) in zip(rows, sources, tried, strict=True):
        wanted = canonical(source)
        back = [
            canonical(prediction)
            for prediction, product in zip(predictions, products, strict=True)
            if wanted is not None and (made := canonical(product)) is not None and made[0] == wanted[0]
        ]
        row[:] = len(predictions), len(back), len({names[0] for names in back if names is not None})
    return rows


SETS = ("parses", "valid", "same", "shared", "predicted", "wanted")
"""Columns of sets: whether all molecules of the reference and of the prediction parse, whether the sets are equal, and
the numbers of molecules in both, in the prediction and in the reference."""


def sets(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """Sets of molecules joined by dots, by canonical SMILES: [rows, SETS].

    Order and repetitions do not matter. A molecule that does not parse counts, and is in no other set.
    """
    rows = np.zeros((len(references), len(SETS)))
    for row, reference, prediction in zip(rows, references, predictions, strict=True):
        (wanted, unread), (made, invalid) = map(_members, (reference, prediction))
        parses, valid = not unread and bool(wanted), not invalid and bool(made)
        shared = len(wanted & made)
        row[:] = parses, valid, parses and valid and wanted == made, shared, len(made) + invalid, len(wanted) + unread
    return rows


def _members(text: str) -> tuple[set[str], int]:
    """The distinct molecules of a set by canonical SMILES, and how many distinct texts do not parse."""
    texts = {part for part in text.strip().split(".") if part}
    names = [canonical(part) for part in texts]
    return {name[0] for name in names if name is not None}, names.count(None)


class _Side(NamedTuple):
    """A molecule and what the ranks compare: canonical SMILES with and without stereochemistry, and the largest
    fragment of the former."""

    molecule: Chem.Mol
    whole: str
    flat: str
    largest: str


@lru_cache(maxsize=REMEMBERED)
def _side(smiles: str) -> _Side | None:
    text = without_maps(dotted(smiles))
    molecule = molecules.read(text)
    if molecule is None:
        return None
    whole = comparable(molecule, written=text)
    # Most molecules have no stereochemistry, and this second round through RDKit is most of the time.
    flat = comparable(molecule, stereo=False) if _STEREO.search(whole) else whole
    return _Side(molecule, whole, flat, largest(whole))


def _ranks(reference: str, predictions: Sequence[str], exact: bool, similar: bool) -> tuple[float, ...]:
    wanted = _side(reference)
    predicted = [wanted if prediction == reference else _side(prediction) for prediction in predictions]
    best = predicted[0]
    more: tuple[float, ...] = ()
    if wanted is None or best is None:
        more = exact * molecules.NO_MATCH + similar * molecules.NO_SIMILARITIES
    elif wanted.whole == best.whole:
        more = exact * _SAME + similar * _ALIKE
    else:
        more = (molecules.match(wanted.molecule, best.molecule) if exact else ()) + (
            molecules.similarities(wanted.molecule, best.molecule) if similar else ()
        )
    invalid = predicted.count(None) / len(predicted)
    if wanted is None:
        return (0.0, best is not None, invalid, np.inf, np.inf, np.inf, *more)
    hits = [[side is not None and side[i] == wanted[i] for side in predicted] for i in (1, 2, 3)]
    return (1.0, best is not None, invalid, *(hit.index(True) if True in hit else np.inf for hit in hits), *more)


def _heavy_atoms(fragment: str) -> int:
    return sum(_HYDROGEN.fullmatch(atom) is None for atom in _ATOM.findall(fragment))
