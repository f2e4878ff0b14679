"""Metrics of molecules written as SMILES (MolT5, Edwards et al. 2022)."""

import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold

from bigchem.chemistry import REMEMBERED, comparable, crowded, same_molecule, try_parse

Floats = NDArray[np.float64]

CHEMNET_LENGTH = 350
"""Length of ChemNet's input, end mark included. Longer SMILES are cut: the package would pad that whole side to the
longest, and the distance would be one between paddings (docs/decisions.md)."""

MATCH = ("exact", "without_inchi")
"""Columns of match: whether two molecules are the same; whether neither has an InChI, so canonical SMILES were
compared."""
SIMILARITIES = ("crowded", "maccs", "rdk", "morgan")
"""Columns of similarities: whether either molecule is too crowded for fingerprints (chemistry.crowded), and three
Tanimoto similarities, NaN if so."""
COLUMNS = ("parses", "valid", *MATCH, *SIMILARITIES)
"""Columns of compare: whether the reference and the prediction parse, MATCH, SIMILARITIES."""
GENERATED = (*COLUMNS, "scaffold", "name")
"""Columns of compare_generated: also whether the prediction has the reference's scaffold, NaN if the reference has
none; and the prediction's canonical SMILES, None if it does not parse."""

_ELEMENT = re.compile(r"Br|Cl|[BCNOPSFIbcnops]")


def levenshtein(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """Levenshtein distance of each pair of strings, in characters: [pairs]."""
    return process.cpdist(references, predictions, scorer=Levenshtein.distance, dtype=np.float64)


def compare(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """What needs RDKit, each molecule parsed once: [pairs, COLUMNS]. Similarities are NaN unless both parse."""
    rows = [_compare(*map(read, pair)) for pair in zip(references, predictions, strict=True)]
    return np.array(rows).reshape(-1, len(COLUMNS))


def compare_generated(references: Sequence[str], predictions: Sequence[str]) -> NDArray[np.object_]:
    """compare, and what only generation needs: [pairs, GENERATED]."""
    rows = [_generated(*pair) for pair in zip(references, predictions, strict=True)]
    return np.array(rows, dtype=object).reshape(-1, len(GENERATED))


NO_MATCH = (0.0, 0.0)
"""match if either does not parse."""
NO_SIMILARITIES = (0.0, np.nan, np.nan, np.nan)
"""similarities if either does not parse."""


def match(wanted: Chem.Mol, predicted: Chem.Mol) -> tuple[float, ...]:
    """Whether two molecules are the same: MATCH."""
    same = same_molecule(wanted, predicted)
    return (same.same, not same.by_inchi)


def similarities(wanted: Chem.Mol, predicted: Chem.Mol) -> tuple[float, ...]:
    """How similar two molecules are: SIMILARITIES."""
    if crowded(wanted) or (predicted is not wanted and crowded(predicted)):
        return (1.0, np.nan, np.nan, np.nan)
    first = _fingerprints(wanted)
    second = first if predicted is wanted else _fingerprints(predicted)
    return (0.0, *map(DataStructs.TanimotoSimilarity, first, second))


@lru_cache(maxsize=REMEMBERED)
def read(smiles: str) -> Chem.Mol | None:
    """chemistry.try_parse, which gives the same object for the same text: what is cached by molecule is found again."""
    return try_parse(smiles)


@lru_cache(maxsize=REMEMBERED)
def scaffold(molecule: Chem.Mol) -> str:
    """Canonical SMILES of the Bemis-Murcko scaffold, without stereochemistry; empty without a ring."""
    if not molecule.GetRingInfo().NumRings():  # RDKit takes minutes over a long chain
        return ""
    return Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(molecule), isomericSmiles=False)


def known(names: Collection[str], training: Iterable[str]) -> set[str]:
    """The canonical SMILES among `names` (as chemistry.comparable writes them) that occur in the training set, however
    it spells them.

    Training molecules are parsed only if their atoms match a name's: a set of millions takes a minute.
    """
    wanted = {_atoms(name) for name in names}
    parsed = ((smiles, try_parse(smiles)) for smiles in training if _atoms(smiles) in wanted)
    return {comparable(molecule, written=smiles) for smiles, molecule in parsed if molecule is not None}.intersection(
        names
    )


def _atoms(smiles: str) -> str:
    """The sorted letters of a molecule's elements: the same for every spelling, aromatic or not, and any charge."""
    return "".join(sorted(_ELEMENT.findall(smiles))).upper()


def frechet_distance(references: Sequence[str], predictions: Sequence[str]) -> float:
    """Fréchet ChemNet distance between all references and all predictions that parse; NaN if fewer than two do.

    ImportError without the optional package fcd.
    """
    from fcd import get_fcd

    wanted, predicted = (
        [Chem.MolToSmiles(molecule)[: CHEMNET_LENGTH - 1] for molecule in map(try_parse, side) if molecule is not None]
        for side in (references, predictions)
    )
    return float(get_fcd(wanted, predicted)) if min(len(wanted), len(predicted)) >= 2 else float("nan")


def _compare(wanted: Chem.Mol | None, predicted: Chem.Mol | None) -> tuple[float, ...]:
    if wanted is None or predicted is None:
        return (wanted is not None, predicted is not None, *NO_MATCH, *NO_SIMILARITIES)
    return (1.0, 1.0, *match(wanted, predicted), *similarities(wanted, predicted))


def _generated(reference: str, prediction: str) -> tuple[float | str | None, ...]:
    wanted, predicted = read(reference), read(prediction)
    match = np.nan
    if wanted is not None and (whole := scaffold(wanted)):
        match = float(predicted is wanted or (predicted is not None and scaffold(predicted) == whole))
    return (*_compare(wanted, predicted), match, _name(prediction))


@lru_cache(maxsize=REMEMBERED)
def _name(smiles: str) -> str | None:
    molecule = read(smiles)
    return None if molecule is None else comparable(molecule, written=smiles)


@lru_cache(maxsize=REMEMBERED)
def _fingerprints(molecule: Chem.Mol) -> tuple[Any, Any, Any]:
    return (
        rdMolDescriptors.GetMACCSKeysFingerprint(molecule),
        Chem.RDKFingerprint(molecule),
        _morgan().GetSparseCountFingerprint(molecule),
    )


@cache
def _morgan() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=2)
