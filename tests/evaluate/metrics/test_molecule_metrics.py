"""bigchem.evaluate.metrics.molecules by hand and against RDKit's direct calls."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import MACCSkeys, rdFingerprintGenerator

from bigchem.evaluate.metrics import molecules


def compare(reference, prediction):
    return dict(zip(molecules.COLUMNS, molecules.compare([reference], [prediction])[0].tolist(), strict=True))


def test_two_spellings_of_one_molecule_are_exact_and_wholly_similar():
    found = compare("OCC", "C(O)C")
    assert found == {
        **dict.fromkeys(("parses", "valid", "exact", "maccs", "rdk", "morgan"), 1),
        **dict.fromkeys(("without_inchi", "crowded"), 0),
    }


def test_tautomers_are_exact_because_inchi_is():
    assert compare("Oc1ccccn1", "O=c1cccc[nH]1")["exact"] == 1


def test_enantiomers_are_not_exact_but_have_one_fingerprint():
    scores = compare("C[C@H](N)O", "C[C@@H](N)O")
    assert (scores["exact"], scores["morgan"]) == (0, 1)


def test_similarities_are_rdkits():
    a, b = "CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Nc1ccc(O)cc1"
    first, second = Chem.MolFromSmiles(a), Chem.MolFromSmiles(b)
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2).GetCountFingerprint
    scores = compare(a, b)
    for name, fingerprint in (("maccs", MACCSkeys.GenMACCSKeys), ("rdk", Chem.RDKFingerprint), ("morgan", morgan)):
        expected = DataStructs.TanimotoSimilarity(fingerprint(first), fingerprint(second))
        assert scores[name] == pytest.approx(expected)
        assert 0 < scores[name] < 1


def test_morgan_counts_atoms():
    # Environments of CC: 2 x CH3, 1 x whole; of CCC: 2 x CH3, CH2, 2 x end of chain, 1 x whole. Shared: 2 x CH3.
    assert compare("CC", "CCC")["morgan"] == pytest.approx(2 / (3 + 6 - 2))


@pytest.mark.parametrize("wrong", ["", "C1CC", "not a molecule", "C" * 50 + "(", "(" * 2000, "é\t\u2028", "c1ccc1c("])
def test_what_does_not_parse_is_invalid_and_not_compared(wrong, capfd):
    scores = compare("CCO", wrong)
    assert (scores["parses"], scores["valid"], scores["exact"]) == (1, 0, 0)
    assert all(np.isnan(scores[name]) for name in ("maccs", "rdk", "morgan"))
    scores = compare(wrong, "CCO")
    assert (scores["parses"], scores["valid"], scores["exact"]) == (0, 1, 0)
    assert capfd.readouterr() == ("", "")


def test_molecules_without_inchi_are_compared_by_canonical_smiles():
    assert Chem.MolToInchi(Chem.MolFromSmiles("*CC")) == ""
    assert compare("*CC", "C(C)*")["exact"] == 1
    assert compare("*CC", "*CN")["exact"] == 0


def test_levenshtein_counts_characters():
    distances = molecules.levenshtein(["CCO", "", "α-D", "C" * 5000], ["CO", "abc", "β-D", ""])
    assert distances.tolist() == [1, 3, 1, 5000]


def test_no_pairs_give_an_empty_table():
    assert molecules.compare([], []).shape == (0, len(molecules.COLUMNS))


def test_frechet_distance_gets_the_canonical_smiles_of_each_side_that_parse(monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "fcd", SimpleNamespace(get_fcd=lambda *sides: calls.append(sides) or 1.5))
    assert molecules.frechet_distance(["OCC", "CC", "C"], ["CN", "C(", "NC"]) == 1.5
    assert calls == [(["CCO", "CC", "C"], ["CN", "CN"])]
    assert np.isnan(molecules.frechet_distance(["OCC", "CC"], ["CN", ""]))


def test_no_molecule_is_longer_than_the_places_that_all_others_are_padded_to(monkeypatch):
    """Otherwise package fcd pads its whole side to that length; test_published_scores.py shows the effect."""
    calls = []
    monkeypatch.setitem(sys.modules, "fcd", SimpleNamespace(get_fcd=lambda *sides: calls.append(sides) or 1.5))
    molecules.frechet_distance(["C" * 400, "CC"], ["CN", "C" * 349])
    assert calls == [(["C" * 349, "CC"], ["CN", "C" * 349])]


def test_what_is_costly_of_a_reference_is_computed_once_for_all_models() -> None:
    molecules._fingerprints.cache_clear()
    first = molecules.compare_generated(["CCOC(=O)C1CCCCC1"], ["CCO"])
    again = molecules.compare_generated(["CCOC(=O)C1CCCCC1"], ["CCN"])
    assert molecules._fingerprints.cache_info().misses == 3
    assert first.tolist() != again.tolist()
