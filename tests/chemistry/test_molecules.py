"""One canonical form for all drawings of a molecule, and no SMILES that takes long."""

from __future__ import annotations

import time
from itertools import combinations

import pytest
from rdkit import Chem

from bigchem.chemistry import canonical, comparable, crowded, inchi_key, parse, same_molecule
from bigchem.evaluate.metrics.molecules import compare

ALTERNATING = (
    "O=C(C[C@]1(c2ccc(-c3ccc(F)cc3)cc2)C2CC3CC1CC(C2)[C@H]3O)N1CC(O)C1",
    "O=C1c2ccccc2C(=O)N1C(=O)c1ccccc1C(=O)N1C(=O)c2ccccc2C1=O",
)
DRAWINGS = (
    ("[NH3]->[Pt](<-[NH3])(Cl)Cl", "[NH3+][Pt-2]([NH3+])(Cl)Cl"),
    ("CP(C)(C)->[Pd](Cl)(Cl)<-P(C)(C)C", "C[P+](C)(C)[Pd-2](Cl)(Cl)[P+](C)(C)C"),
    ("c1ccn(->[Cu+2])cc1", "c1cc[n+]([Cu+])cc1"),
)


@pytest.mark.parametrize("smiles", ALTERNATING)
def test_a_canonical_form_stays_where_rdkits_alternates(smiles: str) -> None:
    once = Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
    twice = Chem.MolToSmiles(Chem.MolFromSmiles(once))
    assert once != twice
    assert canonical(smiles) == canonical(once) == canonical(twice) == canonical(canonical(smiles))


def test_a_map_number_makes_no_stereocentre() -> None:
    assert canonical("[CH3:1][C@H:2]([OH:3])[CH3:4]") == "CC(C)O"


@pytest.mark.parametrize(("arrows", "charges"), DRAWINGS)
def test_complexes_drawn_with_arrows_and_with_charges_are_one(arrows: str, charges: str) -> None:
    first, second = parse(arrows), parse(charges)
    assert comparable(first) == comparable(second)
    assert comparable(first, stereo=False) == comparable(second, stereo=False)
    assert inchi_key(first) == inchi_key(second) != ""
    assert same_molecule(first, second) == (True, True)


def test_molecules_without_inchi_are_compared_by_canonical_smiles_and_that_is_said() -> None:
    assert same_molecule(parse("*CC*"), parse("C(*)C*")) == (True, False)
    assert same_molecule(parse("*CN"), parse("C(N)C")) == (False, True)


def cage(neighbours: list[list[int]]) -> str:
    """Dummy atoms with the given bonds: RDKit allows any number of bonds at them."""
    drawn = Chem.RWMol()
    for _ in neighbours:
        drawn.AddAtom(Chem.Atom(0))
    for here, there in ((i, j) for i, listed in enumerate(neighbours) for j in listed if j > i):
        drawn.AddBond(here, there, Chem.BondType.SINGLE)
    return str(Chem.MolToSmiles(drawn, canonical=False))


def cube(dimensions: int) -> str:
    return cage([[i ^ (1 << bit) for bit in range(dimensions)] for i in range(1 << dimensions)])


def torus(size: int) -> str:
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return cage(
        [
            [((i + a) % size) * size + (j + b) % size for a, b in steps]
            for i, j in ((n // size, n % size) for n in range(size * size))
        ]
    )


def clique(size: int) -> str:
    listed: list[list[int]] = [[] for _ in range(size)]
    for i, j in combinations(range(size), 2):
        listed[i].append(j)
    return cage(listed)


SLOW = {
    "cube of five dimensions": cube(5),
    "cube of six dimensions": cube(6),
    "torus": torus(10),
    "clique": clique(12),
    "star": "*" + "(C)" * 60,
    "hubs": "*" + ("*" + "(C)" * 14) * 4,
    "chain": "C" * 20_000,
}


@pytest.mark.parametrize("name", SLOW)
def test_no_string_takes_long_to_score(name: str) -> None:
    """MACCS keys and path fingerprints of each take from 8 s to minutes, and the chain kills the process."""
    begun = time.process_time()
    (row,) = compare([SLOW[name]], [SLOW[name]])
    assert time.process_time() - begun < 5
    assert row[0] == 0 or row[4] == 1


@pytest.mark.parametrize(
    "smiles",
    [
        "C12C3C4C5C1[Fe]23451678C2C1C6C7C82",
        "C12C3C4C5C1C6C7C2C8C3C9C4C1C5C6C2C7C8C9C12",
        "Cl[Ru-2](Cl)(Cl)(Cl)(Cl)Cl",
        "c1cc2ccc3ccc4ccc5ccc6ccc1c1c2c3c4c5c61",
    ],
)
def test_real_molecules_are_not_crowded(smiles: str) -> None:
    assert not crowded(parse(smiles))
