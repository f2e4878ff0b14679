"""Other SMILES of the same molecules, to which a model that has learnt chemistry should be invariant."""

import zlib
from collections.abc import Callable

from rdkit import Chem

from bigchem.chemistry.molecules import JOINTS, try_parse


def respell(smiles: str, spelling: str, seed: int) -> str | None:
    """SMILES of the same molecules in the same order, in one of SPELLINGS; None if RDKit cannot read one of them
    alone. random depends only on the seed and the text."""
    parts = JOINTS.split(smiles)
    for place in range(0, len(parts), 2):
        molecule = try_parse(parts[place])
        if molecule is None:
            return None
        parts[place] = SPELLINGS[spelling](molecule, zlib.crc32(f"{seed}/{place}/{smiles}".encode()) >> 1)
    return "".join(parts)


def _random(molecule: Chem.Mol, seed: int) -> str:
    return str(Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=max(1, seed))[0])  # 0 would draw a seed


def _kekule(molecule: Chem.Mol, _: int) -> str:
    Chem.Kekulize(molecule)
    return str(Chem.MolToSmiles(molecule, kekuleSmiles=True))


SPELLINGS: dict[str, Callable[[Chem.Mol, int], str]] = {
    "canonical": lambda molecule, _: str(Chem.MolToSmiles(molecule)),
    "random": _random,
    "kekule": _kekule,
    "explicit-h": lambda molecule, _: str(Chem.MolToSmiles(molecule, allHsExplicit=True)),
}
"""canonical, kekule and explicit-h as in AMORE (Ganeeva et al. 2024), whose augmented ChEBI-20 MolReFlect reports on:
RDKit's canonical order, the latter two with explicit bonds for aromatic atoms and with every hydrogen written. random:
another order of atoms."""
