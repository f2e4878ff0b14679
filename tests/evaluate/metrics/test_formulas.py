"""Formulas are compared by their atoms and charge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from bigchem.evaluate.metrics import formulas

COUNTS = st.dictionaries(st.sampled_from(["C", "H", "N", "Cl", "Br", "Na"]), st.integers(1, 40), min_size=1)


def written(counts):
    return "".join(f"{element}{count if count > 1 else ''}" for element, count in counts.items())


def compared(reference, prediction):
    return dict(zip(formulas.COLUMNS, formulas.compare([reference], [prediction])[0], strict=True))


@pytest.mark.parametrize("smiles", ["CCO", "[Na+].[O-]C=O", "C[N+](C)(C)C", "[O-]C(=O)CC([O-])=O", "[2H]C", "[Pt+2]"])
def test_what_rdkit_prints_is_read(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    found = formulas.parse(CalcMolFormula(molecule))
    assert found.charge == Chem.GetFormalCharge(molecule)
    assert found.atoms.total() == Chem.AddHs(molecule).GetNumAtoms()


@pytest.mark.parametrize(
    "text", ["", "c6h6", "C6H6!", "Xx2", "C2H6O.H2O", "Ca(OH)2", "2", "C1.5", "C0", "C9999999", "water"]
)
def test_what_is_no_formula_is_not_read(text):
    assert formulas.parse(text) is None


@given(COUNTS, st.randoms())
def test_order_and_repetition_do_not_matter(counts, random):
    items = [(element, 1) for element, count in counts.items() for _ in range(count)]
    random.shuffle(items)
    text = "".join(element for element, _ in items)
    assert compared(written(counts), text)["exact"] == 1


@given(COUNTS, COUNTS)
def test_similarities_are_symmetric_shares_and_1_only_for_equal_formulas(first, second):
    there, back = compared(written(first), written(second)), compared(written(second), written(first))
    assert (there["elements"], there["atoms"]) == (back["elements"], back["atoms"])
    assert 0 <= there["atoms"] <= 1
    assert (there["elements"] == 1) == (there["atoms"] == 1) == (there["exact"] == 1) == (first == second)


def test_by_hand():
    found = compared("C2H6O", "C2H4N")
    assert found["elements"] == 1 / 4  # C of C, H, N, O
    assert found["atoms"] == 2 * (2 + 4) / (9 + 7)
    assert compared("C2H3O2-", "C2H3O2") == {"parses": 1, "valid": 1, "exact": 0, "elements": 1, "atoms": 1}
    assert compared("C2H6O", "C2H6O?") == {"parses": 1, "valid": 0, "exact": 0, "elements": 0, "atoms": 0}
    unread = compared("C2H6O.H2O", "C2H6O.H2O")
    assert (unread["parses"], unread["exact"], np.isnan(unread["atoms"])) == (0, 1, True)
