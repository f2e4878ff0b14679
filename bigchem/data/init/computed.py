"""Columns that follow from a molecule alone: RDKit computes them, so a model need not learn them. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache

from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from bigchem.chemistry import NotationError, dotted, is_missing, parse, read
from bigchem.data.init.columns import spread
from bigchem.data.sources.sides import finite

_COMPUTED: dict[str, Callable[[Chem.Mol], float]] = {
    "molecular weight": rdMolDescriptors._CalcMolWt,
    "monoisotopic mass": rdMolDescriptors.CalcExactMolWt,
    "number of heavy atoms": Chem.Mol.GetNumHeavyAtoms,
    "number of hydrogen-bond donors": rdMolDescriptors.CalcNumHBD,
    "number of hydrogen-bond acceptors": rdMolDescriptors.CalcNumHBA,
    "number of rings": rdMolDescriptors.CalcNumRings,
    "number of rotatable bonds": rdMolDescriptors.CalcNumRotatableBonds,
    "topological polar surface area": rdMolDescriptors.CalcTPSA,
    "Crippen's log P": lambda mol: rdMolDescriptors.CalcCrippenDescriptors(mol)[0],
    "fraction of sp3 carbon": rdMolDescriptors.CalcFractionCSP3,
    "smallest number of bonds of an atom": lambda mol: min((atom.GetDegree() for atom in mol.GetAtoms()), default=0),
    "formal charge": Chem.GetFormalCharge,
}
_ELEMENT = re.compile(r"[A-Z][a-z]?")
_TRIED = 200
_SAME = 0.9
"""Share of cells that must agree: versions of RDKit differ in a few."""


def computed_by(smiles: Sequence[str], numbers: Sequence[str]) -> str | None:
    """What RDKit calls the numbers in a column, if it computes nearly all of them from the SMILES beside them."""
    pairs = [(s, n) for s, n in zip(smiles, numbers, strict=True) if not is_missing(s) and not is_missing(n)]
    tried = [pairs[n] for n in map(int, spread([str(n) for n in range(len(pairs))], _TRIED))]
    wanted: list[tuple[str, float]] = []
    for text, written in tried:
        if (number := finite(written)) is None:
            return None
        wanted.append((text.strip(), number))
    if not wanted or len({number for _, number in wanted}) < 2:
        return None
    if _agree([(float(len(text)), number) for text, number in wanted]):
        return "the length of the SMILES"
    read_ones = [(found, number) for text, number in wanted if (found := _descriptors(text)) is not None]
    if not read_ones:
        return None
    return next((name for name in _COMPUTED if _agree([(found[name], number) for found, number in read_ones])), None)


def has_formulas(smiles: Sequence[str], formulas: Sequence[str]) -> bool:
    """Whether most formulas name the elements of the molecules beside them: C12 and P3 may also be identifiers."""
    pairs = [(s, f) for s, f in zip(smiles, formulas, strict=True) if not is_missing(s) and not is_missing(f)]
    same = []
    for n in map(int, spread([str(n) for n in range(len(pairs))], _TRIED)):
        text, formula = pairs[n]
        with suppress(NotationError):
            computed = rdMolDescriptors.CalcMolFormula(parse(dotted(read(text.strip(), "chemistry").text)))
            same.append(set(_ELEMENT.findall(computed)) == set(_ELEMENT.findall(formula)))
    return 2 * sum(same) >= len(same)


def _agree(pairs: Sequence[tuple[float, float]]) -> bool:
    """Whether (computed, given) agree: nearly all, and most of those that are not the commonest number."""
    same = [abs(one - other) <= max(0.011, 1e-3 * abs(other)) for one, other in pairs]
    ((commonest, _),) = Counter(number for _, number in pairs).most_common(1)
    rarer = [agrees for agrees, (_, number) in zip(same, pairs, strict=True) if number != commonest]
    return sum(same) >= _SAME * len(pairs) and sum(rarer) >= _SAME * len(rarer)


@lru_cache(maxsize=4096)
def _descriptors(text: str) -> dict[str, float] | None:
    try:
        molecule = parse(dotted(read(text, "chemistry").text))
    except NotationError:
        return None
    return {name: float(compute(molecule)) for name, compute in _COMPUTED.items()}
