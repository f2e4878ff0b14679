"""Functional groups: which ones a caption names, and whether the molecule has them."""

import numpy as np
import pytest
from rdkit import Chem
from real_files import REAL_DATA

from bigchem.evaluate.metrics import functional_groups


@pytest.mark.parametrize(
    ("caption", "names"),
    [
        ("The molecule is a monocarboxylic acid.", {"carboxylic acid"}),
        ("It is a monocarboxylic acid amide and an aromatic ether.", {"ether", "amide"}),
        ("It has a role as an ester hydrolase inhibitor.", {"ester"}),
        ("It is a member of pyridines, a carbamate ester and a lactone.", {"pyridine", "carbamate", "lactone"}),
        ("It is a polyester of diethers with a furanose.", set()),
        (
            "An organochlorine compound, a member of benzenes and a thioether.",
            {"organochlorine", "benzene"} | {"organic sulfide"},
        ),
        ("It is a Cyclic KETONE.", {"ketone"}),
    ],
)
def test_groups_are_found_as_whole_words(caption, names):
    assert functional_groups.named(caption) == names


@pytest.mark.parametrize(
    ("smiles", "has"),
    [
        ("CC(=O)[O-]", {"carboxylic acid"}),
        ("CC(=O)OC", {"ester", "ether"}),
        ("COC", {"ether"}),
        ("O=C1CCCN1", {"lactam", "amide"}),
        ("C[N+](=O)[O-]", {"nitro"}),
        ("CC#N", {"nitrile"}),
        ("Oc1ccccc1", {"phenol", "benzene"}),
        ("c1ccc2[nH]ccc2c1", {"indole", "pyrrole", "benzene"}),
        ("CS(=O)(=O)N", {"sulfonamide"}),
        ("C1CO1", {"epoxide", "ether"}),
    ],
)
def test_molecules_have_their_groups(smiles, has):
    molecule = Chem.MolFromSmiles(smiles)
    found = {name for name in functional_groups.GROUPS if molecule.HasSubstructMatch(functional_groups._pattern(name))}
    assert has <= found
    assert found - has <= {"amide"}


def test_counts_are_of_named_and_absent_groups():
    found = functional_groups.counts(
        ["CC(=O)O", "CC", "C(", "C("], ["a carboxylic acid, an ester", "nothing", "an ether", ""]
    )
    assert found[:2].tolist() == [[2, 1], [0, 0]]
    assert np.isnan(found[2]).all()
    assert found[3].tolist() == [0, 0]


@pytest.mark.data
@pytest.mark.skipif(not (REAL_DATA / "chebi20").is_dir(), reason="no real data")
def test_references_seldom_name_a_group_in_vain():
    with (REAL_DATA / "chebi20" / "test.txt").open(encoding="utf-8", newline="\n") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    found = functional_groups.counts([row[1] for row in rows], [row[2] for row in rows])
    named, absent = np.nansum(found, axis=0)
    assert named > 1500
    assert absent / named < 0.025
