"""Canonical SMILES, fast and quiet: what the readers and the leakage check need of RDKit."""

from __future__ import annotations

import re
from functools import lru_cache

from rdkit import Chem, rdBase

from bigchem.data.sources.base import RowError

rdBase.DisableLog("rdApp.*")

_ATOM_MAP = re.compile(r":\d+(?=\])")


def without_maps(smiles: str) -> str:
    """The SMILES without its atom maps. Done on the text, before parsing: two spellings of a reagent that differ only
    in their maps are then one entry of the cache of `canonical`, and maps cannot make a centre look chiral."""
    return _ATOM_MAP.sub("", smiles)


def atom_maps(smiles: str) -> frozenset[str]:
    """The atom map numbers in the SMILES, as text."""
    return frozenset(match.group()[1:] for match in _ATOM_MAP.finditer(smiles))


def parse(smiles: str) -> Chem.Mol:
    """RDKit's molecule; RowError if RDKit cannot read it."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise RowError(f"RDKit cannot read '{smiles[:60]}'")
    return molecule


@lru_cache(maxsize=1 << 16)
def canonical(smiles: str) -> str:
    """RDKit's canonical isomeric SMILES; RowError if RDKit cannot read it. Cached: reagents come again and again."""
    return str(Chem.MolToSmiles(parse(smiles)))


def has_carbon(smiles: str) -> bool:
    """Whether there is a carbon atom in it."""
    return any(atom.GetAtomicNum() == 6 for atom in parse(smiles).GetAtoms())
