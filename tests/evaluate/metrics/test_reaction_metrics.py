"""bigchem.evaluate.metrics.reactions by hand."""

import numpy as np
import pytest

from bigchem.evaluate.metrics import molecules, reactions


def ranks(reference, predictions):
    return dict(zip(reactions.COLUMNS, reactions.ranks([reference], [predictions])[0].tolist(), strict=True))


def test_rank_is_the_first_place_of_the_reference_in_any_spelling():
    assert ranks("CCO", ["C(", "CC", "OCC", "CCO"]) == {
        "parses": 1,
        "valid": 0,
        "invalid": 0.25,
        "rank": 2,
        "rank_nostereo": 2,
        "rank_maxfrag": 2,
    }


def test_a_reference_that_is_not_in_the_list_has_no_rank():
    assert ranks("CCO", ["CC", ""])["rank"] == np.inf


def test_stereochemistry_counts_unless_removed():
    assert ranks("C[C@H](N)O", ["C[C@@H](N)O", "C[C@H](N)O"])["rank"] == 1
    assert ranks("C[C@H](N)O", ["CC(N)O"])["rank"] == np.inf
    assert ranks("C[C@H](N)O", ["CC(N)O"])["rank_nostereo"] == 0
    assert ranks("F/C=C/F", ["F/C=C\\F"])["rank_nostereo"] == 0


def test_isotopes_count_even_without_stereochemistry():
    assert ranks("[2H]C", ["[H]C"])["rank_nostereo"] == np.inf


def test_order_of_reactants_and_atom_maps_do_not_count():
    assert ranks("CCO.CC(=O)O", ["[CH3:1][C:2](=[O:3])[OH:4].OCC"])["rank"] == 0
    assert ranks("CCO.CC(=O)O", ["CCO"])["rank"] == np.inf


@pytest.mark.parametrize("reference", ["", "C(", "*["])
def test_a_reference_that_does_not_parse_is_a_miss(reference):
    found = {"parses": 0, "valid": 0, "invalid": 0.5, "rank": np.inf} | {
        f"rank_{kind}": np.inf for kind in ("nostereo", "maxfrag")
    }
    assert ranks(reference, [reference, "C"]) == found


def test_the_largest_fragment_has_the_most_heavy_atoms():
    assert reactions.largest("[2H]OC([2H])([2H])[2H].CCCl") == "CCCl"
    assert reactions.largest("CCO.CCN") == reactions.largest("CCN.CCO") == "CCO"
    assert reactions.largest("[Na+].[H][H]") == "[Na+]"
    assert ranks("CCCCO.Cl", ["CCC", "Br.OCCCC"])["rank_maxfrag"] == 1


def test_similarities_ignore_maps_and_are_those_of_all_fragments_together():
    found = reactions.ranks(
        ["[CH3:1][CH2:2]O.Cl", "CCO", "CC~[Na+]", "C("],
        [["CCO.Cl"], ["CCN"], ["CC.[Na+]"], ["C"]],
        exact=True,
        similar=True,
    )[:, len(reactions.COLUMNS) :].tolist()
    assert found[0] == found[2] == [1, 0, 0, 1, 1, 1]
    assert found[1] == molecules.compare(["CCO"], ["CCN"])[0, 2:].tolist()
    assert np.isnan(found[3][3:]).all()
    assert found[3][0] == 0


def set_of(reference, prediction):
    return dict(zip(reactions.SETS, reactions.sets([reference], [prediction])[0], strict=True))


def test_sets_of_molecules_ignore_order_spelling_and_repetition():
    found = set_of("CCO.[Na+]~[Cl-]", "[Cl-]~[Na+].OCC.C(C)O")
    assert found == {"parses": 1, "valid": 1, "same": 1, "shared": 2, "predicted": 2, "wanted": 2}


def test_molecules_that_do_not_parse_count_and_are_in_no_other_set():
    found = set_of("CCO.C(", "C(.CCO.N")
    assert found == {"parses": 0, "valid": 0, "same": 0, "shared": 1, "predicted": 3, "wanted": 2}
    assert set_of("C", "") == {"parses": 1, "valid": 0, "same": 0, "shared": 0, "predicted": 0, "wanted": 1}
