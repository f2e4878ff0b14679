"""Captions state what RDKit finds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from rdkit import Chem
from rdkit.Chem import Fragments, rdMolDescriptors
from synthetic_rows import atoms, of

from bigchem.data.sources.base import Row
from bigchem.data.sources.synthetic import captions as synthetic_captions
from bigchem.data.sources.synthetic import molecules


@pytest.fixture(scope="module")
def captions() -> list[tuple[Chem.Mol, str]]:
    drawn = [molecules.molecule(Random(f"molecule {number}")) for number in range(1500)]
    return [(Chem.MolFromSmiles(smiles), synthetic_captions.caption(smiles)) for smiles in drawn]


NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}


def stated(text: str, pattern: str) -> dict[str, int]:
    """The counts in one sentence of a caption: `a nitro and two ether groups` -> {"nitro": 1, "ether": 2}."""
    found = re.search(pattern, text)
    if found is None:
        return {}
    items = re.split(r", (?=[a-z])| and ", found.group(1))
    return {name: NUMBERS[number] for number, name in (item.split(" ", 1) for item in items)}


def groups(text: str) -> Counter[str]:
    """Classes and substituents stated, the class in the first sentence included."""
    counts = Counter(stated(text, r"It contains (.*?) groups?\.") | stated(text, r"It bears (.*?) groups?\."))
    head = re.match(r"The molecule is an? (?:\w+) (.*?)(?: with .*?)?\. ", text)
    assert head, text
    counts[head.group(1)] = counts[head.group(1)] or 1
    return counts


def rings(text: str) -> dict[str, int]:
    return stated(text, r"^[^.]* with (.*?) rings?\. ")


def test_the_formula_stated_is_that_of_the_molecule(captions: list[tuple[Chem.Mol, str]]) -> None:
    for mol, text in captions:
        formula = re.search(r"Its formula is (\w+)\.$", text)
        assert formula, text
        counted = {symbol: int(number or 1) for symbol, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula.group(1))}
        assert counted == atoms(Chem.MolToSmiles(mol))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("nitrile", Fragments.fr_nitrile),
        ("aldehyde", Fragments.fr_aldehyde),
        ("carboxylic acid", Fragments.fr_COO2),
        ("hydroxyarene", Fragments.fr_Ar_OH),
        ("alcohol", Fragments.fr_Al_OH),
        ("urea", Fragments.fr_urea),
        ("nitro", Fragments.fr_nitro),
        ("chloro", lambda mol: sum(atom.GetAtomicNum() == 17 for atom in mol.GetAtoms())),
        ("bromo", lambda mol: sum(atom.GetAtomicNum() == 35 for atom in mol.GetAtoms())),
        ("sulfone", Fragments.fr_sulfone),
        ("ester", Fragments.fr_ester),
        ("ketone", Fragments.fr_ketone),
        ("sulfonamide", Fragments.fr_sulfonamd),
    ],
)
def test_groups_stated_are_those_that_rdkits_own_counters_find(
    captions: list[tuple[Chem.Mol, str]], name: str, count: Callable[[Chem.Mol], int]
) -> None:
    seen = 0
    for mol, text in captions:
        assert groups(text)[name] == count(mol), (Chem.MolToSmiles(mol), text)
        seen += groups(text)[name]
    assert seen > 5


def test_every_fluorine_is_stated(captions: list[tuple[Chem.Mol, str]]) -> None:
    for mol, text in captions:
        fluorines = sum(atom.GetAtomicNum() == 9 for atom in mol.GetAtoms())
        assert groups(text)["fluoro"] + 3 * groups(text)["trifluoromethyl"] == fluorines


def test_every_ring_is_stated(captions: list[tuple[Chem.Mol, str]]) -> None:
    for mol, text in captions:
        fused = sum(count for name, count in rings(text).items() if name in ("naphthalene", "quinoline"))
        assert sum(rings(text).values()) + fused == mol.GetRingInfo().NumRings(), text
        assert ("acyclic" in text) == (mol.GetRingInfo().NumRings() == 0)
        assert (" aromatic " in text or "heteroaromatic" in text) == (rdMolDescriptors.CalcNumAromaticRings(mol) > 0)


@pytest.mark.parametrize(
    ("name", "smarts"),
    [
        ("monosubstituted", "[cD3]1[cD2][cD2][cD2][cD2][cD2]1"),
        ("1,2-disubstituted", "[cD3R1]1[cD3R1][cD2][cD2][cD2][cD2]1"),
        ("1,3-disubstituted", "[cD3]1[cD2][cD3][cD2][cD2][cD2]1"),
        ("1,4-disubstituted", "[cD3]1[cD2][cD2][cD3][cD2][cD2]1"),
        ("1,2,4-trisubstituted", "[cD3R1]1[cD3R1][cD2][cD3][cD2][cD2]1"),
        ("1,3,5-trisubstituted", "[cD3]1[cD2][cD3][cD2][cD3][cD2]1"),
    ],
)
def test_locants_of_benzenes_are_those_of_the_pattern(
    captions: list[tuple[Chem.Mol, str]], name: str, smarts: str
) -> None:
    pattern = Chem.MolFromSmarts(smarts)
    found = [len(mol.GetSubstructMatches(pattern)) for mol, _ in captions]
    assert found == [rings(text).get(f"{name} benzene", 0) for _, text in captions]
    assert sum(found) > 5


def test_double_bonds_have_the_stated_configuration(captions: list[tuple[Chem.Mol, str]]) -> None:
    labels = Counter()
    for mol, text in captions:
        stereo = Counter(bond.GetStereo().name[-1] for bond in mol.GetBonds() if bond.GetStereo().name != "STEREONONE")
        assert stated(text, r"It has (.*?) double bonds?\.") == stereo
        labels.update(stereo)
    assert min(labels["E"], labels["Z"]) > 10


@pytest.mark.parametrize(
    ("smiles", "text"),
    [
        (
            "COC(=O)c1ccc(Cl)cc1",
            "The molecule is an aromatic ester with a 1,4-disubstituted benzene ring. It bears a chloro group. "
            "Its formula is C8H7ClO2.",
        ),
        (
            "CC(=O)Nc1cc(F)cc(F)c1",
            "The molecule is an aromatic amide with a 1,3,5-trisubstituted benzene ring. It bears two fluoro groups. "
            "Its formula is C8H7F2NO.",
        ),
        ("CCO", "The molecule is an acyclic alcohol. Its formula is C2H6O."),
        (
            "O=C(O)/C=C/c1ccncc1",
            "The molecule is a heteroaromatic carboxylic acid with a pyridine ring. It has an E double bond. "
            "Its formula is C8H7NO2.",
        ),
    ],
)
def test_captions_read_as_written_down(smiles: str, text: str) -> None:
    assert synthetic_captions.caption(smiles) == text


def test_captions_are_the_inverse_task_of_generation(corpus: list[Row]) -> None:
    for row in of(corpus, "captioning", "generation"):
        text = row.target if row.task == "captioning" else row.source
        assert text == synthetic_captions.caption(row.molecule or "")
