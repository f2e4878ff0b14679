"""Texts by their domain: reactions in sections, formulas."""

from __future__ import annotations

import time

import pytest

from bigchem.chemistry import NotationError, read


@pytest.mark.parametrize("formula", ["C2H6O", "[Fe(CN)6]4-", "CuSO4·5H2O", "C10H16N5O13P3-3", "Na+"])
def test_formulas_are_read_with_charges_brackets_and_water(formula: str) -> None:
    assert read(formula, "formula").text == formula


@pytest.mark.parametrize("text", ["-" * 200 + "!", "+1-1" * 50 + "?", "ethanol"])
def test_what_is_no_formula_is_refused_in_time_that_grows_with_its_length(text: str) -> None:
    begun = time.process_time()
    with pytest.raises(NotationError, match="not a molecular formula"):
        read(f"C{text}", "formula")
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("text", ["C C O > > C C = O", "CCO>>CC=O", "CCO> >CC=O", " C C O>\t> C C = O "])
def test_agents_of_white_space_are_none(text: str) -> None:
    assert read(text, "reaction").text == "CCO>>CC=O"


@pytest.mark.parametrize("text", [" >>CCO", "CCO>> ", "> >"])
def test_reactants_or_a_product_of_white_space_are_missing(text: str) -> None:
    with pytest.raises(NotationError, match="without reactants or product"):
        read(text, "reaction")
