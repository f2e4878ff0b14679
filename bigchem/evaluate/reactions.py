"""Metrics of reactions: where in a k-best list the right molecules stand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bigchem.chemistry import comparable, dotted, try_parse, without_maps

Floats = NDArray[np.float64]

COLUMNS = ("parses", "valid", "invalid", "rank", "rank_nostereo")
"""The columns of ranks: whether the reference parses, whether the best prediction does, the share of the k predictions
that does not, and two ranks."""


def canonical(smiles: str) -> tuple[str, str] | None:
    """Canonical SMILES with and without stereochemistry, by chemistry.comparable; None where it does not parse.

    `~`, which joins the fragments of one compound in bigchem's and the paper's reactions, counts as a dot.
    """
    text = without_maps(dotted(smiles))
    molecule = try_parse(text)
    if molecule is None:
        return None
    return comparable(molecule, written=text), comparable(molecule, stereo=False)


def ranks(references: Sequence[str], predictions: Sequence[Sequence[str]]) -> Floats:
    """[rows, COLUMNS]. A rank is the position (0: best) of the first prediction that is the reference.

    It is infinite where there is none. Predictions that are no SMILES or are repeated keep their places.
    """
    return np.array([_ranks(*row) for row in zip(references, predictions, strict=True)]).reshape(-1, len(COLUMNS))


def _ranks(reference: str, predictions: Sequence[str]) -> tuple[float, ...]:
    wanted = canonical(reference)
    predicted = [canonical(prediction) for prediction in predictions]
    valid = predicted[0] is not None
    invalid = predicted.count(None) / len(predicted)
    if wanted is None:
        return (0.0, valid, invalid, np.inf, np.inf)
    hits = [[one is not None and one[i] == wanted[i] for one in predicted] for i in (0, 1)]
    return (1.0, valid, invalid, *(hit.index(True) if True in hit else np.inf for hit in hits))
