"""Small molecules grown from building blocks: ring systems, linkers, functional groups, substituents.

A block is a SMILES template whose `{}` are places for substituents. Its first atom has a place too, so one template
serves as the core of a molecule (a group fills that place) and as a radical (the place is the bond to the preceding
atom). Any group may fill any place: valences stay right, and no unstable group arises (no aminals, no peroxides).
"""

from functools import lru_cache
from random import Random

from rdkit import Chem

BENZENE = "c1{}c{}c{}c{}c{}c1{}"
BENZENES = (BENZENE,) * 5 + ("c1{}c{}c{}c2cccc{}c2c1{}",)
HETEROARENES = (
    "c1{}nc{}c{}c{}c1{}",  # pyridin-2-yl
    "c1{}cnc{}c{}c1{}",  # pyridin-3-yl
    "c1{}c{}cncc1{}",  # pyridin-4-yl
    "c1{}nc{}c{}c{}n1",  # pyrimidin-2-yl
    "c1{}cnc{}nc1",  # pyrimidin-5-yl
    "c1{}sc{}c{}c1{}",  # thiophen-2-yl
    "c1{}oc{}c{}c1",  # furan-2-yl
    "c1{}nc{}c{}s1",  # 1,3-thiazol-2-yl
    "c1{}c{}nn(C)c1",  # 1-methylpyrazol-4-yl
    "c1{}cnc2ccc{}cc2c1",  # quinolin-3-yl
)
ALICYCLES = ("C1{}CC{}CC1", "C1{}CCC{}CC1", "C1{}CC{}CCC1", "C1{}CCOCC1")
CHAINS = ("C{}CC{}", "C{}CCC{}", "C{}CC(C)C{}", "C{}CCCCC{}", "C{}C(C)(C)C{}", "C{}CCCC{}C")

ALKYLS = ("C", "CC", "CCC", "CCCC", "C(C)C", "CC(C)C", "C1CC1", "C1CCCC1", "C1CCCCC1", "CC1CC1", "C1CCOCC1", "CCOC")
DECORATIONS = (
    *("C", "CC", "C(C)C", "C(C)(C)C", "OC", "OCC", "OC(C)C", "OC(F)F", "SC", "F", "Cl", "C(F)F", "C(F)(F)F", "C#N"),
    "C1CC1",
)
CYCLIC_AMINES = ("N1CCOCC1", "N1CCCCC1", "N1CCCC1", "N1CCN(C)CC1", "N1CCC(C)CC1", "N1CCN(C(C)=O)CC1")
END_GROUPS = (
    *("C(=O)O", "CC(=O)O", "C(=O)OC", "C(=O)OCC", "OC(C)=O", "C(N)=O", "C(=O)NC", "NC(C)=O", "C=O", "C(C)=O"),
    *("O", "CO", "OC", "N", "CN", "NC", "N(C)C", "[N+](=O)[O-]", "S(N)(=O)=O", "S(C)(=O)=O", "SC", "Br", "C#N"),
    *("CC#N", "NC(=O)OC", "NC(N)=O"),
)
BRIDGES = (
    *("C(=O)N", "NC(=O)", "C(=O)O", "OC(=O)", "O", "CO", "OC", "S", "N", "CN", "C(=O)", "NC(=O)N", "OC(=O)N"),
    *("S(=O)(=O)N", "NS(=O)(=O)", "S(=O)(=O)", "CC"),
)
_NESTED = str.maketrans("123456", "345678")


@lru_cache(maxsize=4096)
def canonical(smiles: str) -> str:
    """RDKit's canonical SMILES. ValueError if it cannot be read."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(f"not a SMILES: {smiles}")
    return str(Chem.MolToSmiles(mol))


def fill(template: str, groups: dict[int, str]) -> str:
    """Puts groups on places of a template, numbered in order. Their ring digits are shifted to avoid its own."""
    places = template.count("{}")
    return template.format(*(f"({groups[i].translate(_NESTED)})" if groups.get(i) else "" for i in range(places)))


def decorate(rng: Random, template: str, decorations: tuple[str, ...] = DECORATIONS) -> str:
    """A template as a radical, with up to two inert substituents."""
    free = range(1, template.count("{}"))
    count = min(len(free), rng.choice((0, 1, 1, 2, 2, 2)))
    return fill(template, {place: rng.choice(decorations) for place in rng.sample(free, count)})


def benzene(rng: Random) -> str:
    """A phenyl or naphthyl radical."""
    return decorate(rng, rng.choice(BENZENES))


def heteroarene(rng: Random) -> str:
    """A radical of an aromatic heterocycle."""
    return decorate(rng, rng.choice(HETEROARENES))


def arene(rng: Random) -> str:
    """Any aromatic radical."""
    return benzene(rng) if rng.random() < 0.6 else heteroarene(rng)


def radical(rng: Random) -> str:
    """An aromatic, arylalkyl or alkyl radical, inert in all reactions of the corpus."""
    kind = rng.random()
    if kind < 0.45:
        return arene(rng)
    if kind < 0.75:
        return rng.choice(("C", "CC", "C(C)")) + arene(rng)
    return rng.choice(ALKYLS)


def molecule(rng: Random) -> str:
    """The canonical SMILES of a molecule to describe: a core with one to three groups."""
    kind = rng.random()
    if kind < 0.5:
        core = rng.choice(BENZENES)
    elif kind < 0.8:
        core = rng.choice(HETEROARENES)
    else:
        core = rng.choice(ALICYCLES if kind < 0.9 else CHAINS)
    places = rng.sample(range(core.count("{}")), min(core.count("{}"), rng.choice((2, 3))))
    groups = {places[0]: _main_group(rng)}
    for place in places[1:]:
        groups[place] = rng.choice(DECORATIONS if core[0] == "c" else END_GROUPS)
    return canonical(fill(core, groups))


def _main_group(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(END_GROUPS)
    if kind < 0.8:
        return rng.choice(BRIDGES) + radical(rng)
    if kind < 0.9:
        return rng.choice(CYCLIC_AMINES)
    return _alkene(rng)


def _alkene(rng: Random) -> str:
    """A double bond with configuration: two thirds E, one third Z."""
    end = rng.choice(("C(=O)O", "C(=O)OC", "C(C)=O", "C#N", arene(rng)))
    return rng.choice(("/C=C/", "/C=C/", "/C=C\\")) + end
