"""Descriptions of molecules from what RDKit finds in them, in the style of ChEBI.

A caption depends on the molecule alone. It states ring systems, functional groups, substituents, the configuration of
double bonds and the formula; a sentence without content is omitted. `Aromatic` and similar words describe the rings of
the molecule, not the position of the group.
"""

from functools import cache
from typing import Any

from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

_CLASSES = (
    # Most senior first: the first one present names the molecule.
    ("carboxylic acid", "[CX3;$(C[#6])](=O)[OX2H1]"),
    ("ester", "[CX3;$(C[#6])](=O)[OX2H0]"),
    ("carbamate", "[NX3][CX3](=O)[OX2H0]"),
    ("urea", "[NX3][CX3](=O)[NX3]"),
    ("amide", "[NX3][CX3;$(C[#6])]=O"),
    ("sulfonamide", "[NX3]S(=O)(=O)[#6]"),
    ("sulfone", "[#6]S(=O)(=O)[#6]"),
    ("aldehyde", "[CX3H1]=O"),
    ("ketone", "[#6][CX3](=O)[#6]"),
    ("hydroxyarene", "c[OX2H1]"),
    ("alcohol", "[CX4][OX2H1]"),
    ("primary amine", "[NX3H2;!$(N~[C,S]=O)][#6]"),
    ("secondary amine", "[NX3H1;!$(N~[C,S]=O)]([#6])[#6]"),
    ("tertiary amine", "[NX3H0;!$(N~[C,S]=O)]([#6])([#6])[#6]"),
    ("nitrile", "C#N"),
    ("ether", "[OX2;!R]([#6;!$(C=O);!$([CH3])])[#6;!$(C=O);!$([CH3])]"),
    ("thioether", "[SX2]([#6])[#6]"),
)
_SUBSTITUENTS = (
    ("methyl", "[CH3][R]"),
    ("ethyl", "[CH3][CH2][R]"),
    ("isopropyl", "[CH3][CH]([CH3])[R]"),
    ("tert-butyl", "[CH3]C([CH3])([CH3])[R]"),
    ("methoxy", "[CH3][OX2][#6;!$(C=O)]"),
    ("trifluoromethyl", "C(F)(F)F"),
    ("fluoro", "[F;!$(FC(F)F)]"),
    ("chloro", "Cl"),
    ("bromo", "Br"),
    ("nitro", "[N+](=O)[O-]"),
)
_RINGS = (
    ("naphthalene", "c1ccc2ccccc2c1"),
    ("quinoline", "c1ccc2ncccc2c1"),
    ("pyridine", "[nR1]1[cR1][cR1][cR1][cR1][cR1]1"),
    ("pyrimidine", "n1cnccc1"),
    ("thiophene", "s1cccc1"),
    ("furan", "o1cccc1"),
    ("thiazole", "s1cncc1"),
    ("pyrazole", "n1nccc1"),
    ("piperazine", "N1CCNCC1"),
    ("piperidine", "N1CCCCC1"),
    ("pyrrolidine", "N1CCCC1"),
    ("morpholine", "N1CCOCC1"),
    ("oxane", "O1CCCCC1"),
    ("cyclohexane", "C1CCCCC1"),
    ("cyclopentane", "C1CCCC1"),
    ("cyclopropane", "C1CC1"),
)
_BENZENE = "[cR1]1[cR1][cR1][cR1][cR1][cR1]1"
_DEGREES = ("", "mono", "di", "tri", "tetra", "penta", "hexa")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def caption(smiles: str) -> str:
    """The description of a molecule. ValueError if the SMILES cannot be read."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(f"not a SMILES: {smiles}")
    classes = _count(mol, _CLASSES)
    head = next(iter(classes), "compound")
    by_verb = {
        "It contains": ({name: count for name, count in classes.items() if name != head or count > 1}, "group"),
        "It bears": (_count(mol, _SUBSTITUENTS), "group"),
        "It has": (_double_bonds(mol), "double bond"),
    }
    rings = _benzenes(mol) | _count(mol, _RINGS)
    sentences = [f"The molecule is {_a(_skeleton(mol))} {head}" + (f" with {_listed(rings, 'ring')}" if rings else "")]
    sentences += [f"{verb} {_listed(counts, noun)}" for verb, (counts, noun) in by_verb.items() if counts]
    return ". ".join([*sentences, f"Its formula is {CalcMolFormula(mol)}."])


@cache
def _pattern(smarts: str) -> Any:
    return Chem.MolFromSmarts(smarts)


def _count(mol: Any, patterns: tuple[tuple[str, str], ...]) -> dict[str, int]:
    """Number of matches of each pattern that has any, in the order of the table."""
    counts = {name: len(mol.GetSubstructMatches(_pattern(smarts))) for name, smarts in patterns}
    return {name: count for name, count in counts.items() if count}


def _benzenes(mol: Any) -> dict[str, int]:
    """Benzene rings by their lowest locants, as in `1,4-disubstituted benzene`."""
    found: dict[str, int] = {}
    for match in mol.GetSubstructMatches(_pattern(_BENZENE)):
        locants = lowest_locants([mol.GetAtomWithIdx(atom).GetDegree() == 3 for atom in match])
        degree = f"{_DEGREES[len(locants)]}substituted " if locants else ""
        where = ",".join(map(str, locants)) + "-" if len(locants) > 1 else ""
        name = f"{where}{degree}benzene"
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def lowest_locants(substituted: list[bool]) -> list[int]:
    """The lowest locants of the substituted atoms of a six-ring, over all starting atoms and both directions."""
    size = len(substituted)
    numberings = [
        [step + 1 for step in range(size) if substituted[(start + direction * step) % size]]
        for start in range(size)
        for direction in (1, -1)
    ]
    return min(numberings)


def _double_bonds(mol: Any) -> dict[str, int]:
    counts = {"E": 0, "Z": 0}
    for bond in mol.GetBonds():
        label = bond.GetStereo().name.removeprefix("STEREO")
        if label in counts:
            counts[label] += 1
    return {name: count for name, count in counts.items() if count}


def _skeleton(mol: Any) -> str:
    aromatic = [atom.GetAtomicNum() for atom in mol.GetAromaticAtoms()]
    if aromatic:
        return "aromatic" if all(number == 6 for number in aromatic) else "heteroaromatic"
    return "alicyclic" if mol.GetRingInfo().NumRings() else "acyclic"


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeioE' else 'a'} {noun}"


def _listed(counts: dict[str, int], noun: str) -> str:
    """`a pyridine and two furan rings`: one noun, plural if the last item is."""
    items = [_a(name) if count == 1 else f"{_NUMBERS[count]} {name}" for name, count in counts.items()]
    plural = "" if list(counts.values())[-1] == 1 else "s"
    return f"{', '.join(items[:-1])} and {items[-1]} {noun}{plural}" if len(items) > 1 else f"{items[0]} {noun}{plural}"
