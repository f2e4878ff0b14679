"""Metrics of molecules written as SMILES (MolT5, Edwards et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

from bigchem.chemistry import crowded, same_molecule, try_parse

Floats = NDArray[np.float64]

CHEMNET_LENGTH = 350
"""Places of ChemNet's input, the end mark's included. Where a SMILES is longer, the package pads all of that side to
it, and the distance becomes one between paddings (docs/decisions.md): longer ones are cut."""

COLUMNS = ("parses", "valid", "exact", "without_inchi", "crowded", "maccs", "rdk", "morgan")
"""The columns of compare: whether the reference parses, whether the prediction does, whether they are one molecule;
whether neither has an InChI, so that their canonical SMILES were compared; whether one is too crowded for fingerprints
(chemistry.crowded); and three similarities."""


def levenshtein(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """Edit distance of each pair of strings, in characters: [pairs]."""
    return process.cpdist(references, predictions, scorer=Levenshtein.distance, dtype=np.float64)


def compare(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """Everything that needs RDKit, each molecule parsed once: [pairs, COLUMNS]. Similarities: NaN unless both parse."""
    return np.array([_compare(*pair) for pair in zip(references, predictions, strict=True)]).reshape(-1, len(COLUMNS))


def frechet_distance(references: Sequence[str], predictions: Sequence[str]) -> float:
    """Fréchet ChemNet distance (package fcd) between all references and all predictions that parse; NaN for under two.

    Raises ImportError where the optional package is not installed.
    """
    from fcd import get_fcd

    wanted, predicted = (
        [Chem.MolToSmiles(molecule)[: CHEMNET_LENGTH - 1] for molecule in map(try_parse, side) if molecule is not None]
        for side in (references, predictions)
    )
    return float(get_fcd(wanted, predicted)) if min(len(wanted), len(predicted)) >= 2 else float("nan")


def _compare(reference: str, prediction: str) -> tuple[float, ...]:
    wanted = try_parse(reference)
    predicted = wanted if prediction == reference else try_parse(prediction)
    none = (np.nan, np.nan, np.nan)
    if wanted is None or predicted is None:
        return (wanted is not None, predicted is not None, 0.0, 0.0, 0.0, *none)
    same = same_molecule(wanted, predicted)
    if crowded(wanted) or (predicted is not wanted and crowded(predicted)):
        return (1.0, 1.0, same.same, not same.by_inchi, 1.0, *none)
    first = _fingerprints(wanted)
    second = first if predicted is wanted else _fingerprints(predicted)
    similarities = map(DataStructs.TanimotoSimilarity, first, second)
    return (1.0, 1.0, same.same, not same.by_inchi, 0.0, *similarities)


def _fingerprints(molecule: Chem.Mol) -> tuple[Any, Any, Any]:
    return (
        rdMolDescriptors.GetMACCSKeysFingerprint(molecule),
        Chem.RDKFingerprint(molecule),
        _morgan().GetSparseCountFingerprint(molecule),
    )


@cache
def _morgan() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2)
