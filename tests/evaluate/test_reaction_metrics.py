"""bigchem.evaluate.reactions by hand."""

import numpy as np
import pytest

from bigchem.evaluate import reactions


def ranks(reference, predictions):
    return dict(zip(reactions.COLUMNS, reactions.ranks([reference], [predictions])[0].tolist(), strict=True))


def test_rank_is_the_first_place_of_the_reference_in_any_spelling():
    assert ranks("CCO", ["C(", "CC", "OCC", "CCO"]) == {
        "parses": 1,
        "valid": 0,
        "invalid": 0.25,
        "rank": 2,
        "rank_nostereo": 2,
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
    found = {"parses": 0, "valid": 0, "invalid": 0.5, "rank": np.inf, "rank_nostereo": np.inf}
    assert ranks(reference, [reference, "C"]) == found
