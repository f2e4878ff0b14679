"""What `bigchem data init` takes a column for, by its cells alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_tables import PROTEIN, SMILES, TEXTS

from bigchem.data.init.columns import examine


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (SMILES, "smiles"),
        (["[C][C][O]", "[C][=O]", "[C][N][C]"] * 9 + ["[C][C][C][C][O]"], "label"),
        ([f"[C]{'[C]' * n}[O]" for n in range(1, 40)], "smiles"),
        ([f"CCO>>{'C' * n}OC" for n in range(1, 40)], "reaction"),
        ([f"CCO.CC(=O)O>[H+]>{'C' * n}OC |f:0.1|" for n in range(1, 40)], "reaction"),
        ([f"{n}.5" for n in range(40)], "number"),
        (["1e-9", "2.5E3", "-4"] + [str(n) for n in range(20, 60)], "number"),
        ([f"\N{MINUS SIGN}{n}.5" for n in range(40)], "number"),
        (["0", "1"] * 30, "label"),
        (["1.0", "0.0", ""] * 30, "label"),
        (["Yes", "No"] * 30, "label"),
        (["C", "N", "O"] * 30, "label"),
        ([f"C{n}H{2 * n + 2}O" for n in range(1, 40)], "formula"),
        ([f"{n}-methyl{n}-propylheptan-{n}-ol" for n in range(1, 40)], "name"),
        ([PROTEIN[n % 5 :] + "ACDEFGHIKL"[n % 7 :] for n in range(40)], "protein"),
        (TEXTS, "text"),
        (["train", "val", "test"] * 20, "split"),
        (["Train"] * 50 + ["Dev"] * 5, "split"),
        (["train"] * 30, "constant"),
        (["", "NaN", "-"] * 10, "empty"),
        ([str(n) for n in range(100, 160)], "identifier"),
        ([f"drug{n}" for n in range(60)], "identifier"),
    ],
)
def test_a_column_is_known_by_its_cells(cells: list[str], kind: str) -> None:
    assert examine("x", cells).kind == kind


@given(st.lists(st.text(max_size=12), max_size=30))
def test_any_cells_are_of_some_kind_and_say_why(cells: list[str]) -> None:
    assert examine("x", cells).why


def test_a_number_has_the_decimals_that_resolve_its_spread_and_labels_end_with_the_positive_one() -> None:
    assert examine("x", [f"{n / 10:.6f}" for n in range(40)]).decimals == 2
    assert examine("x", [f"{n}" for n in range(0, 4000, 100)]).decimals == 0
    assert examine("x", [f"{n}e-7" for n in range(40)]).decimals is None
    assert examine("x", [f"{n / 10:.2f}" for n in range(60)] + ["see note", "1.2 (mean.......)"]).decimals == 2
    for no, yes in (("BBB-", "BBB+"), ("nonmutagenic", "mutagenic"), ("Non-binder", "binder"), ("not toxic", "Toxic")):
        assert examine("x", [no, yes] * 9).values == examine("x", [yes, no] * 9).values == (no, yes)
    assert examine("IC50", [f"{10 ** (n / 10 - 3):.4f}" for n in range(60)]).decimals == 4, "0.0016 to 794"
    assert examine("x", ["Yes", "No"] * 9).values == ("No", "Yes")
    assert examine("x", ["1", "0"] * 9).values == ("0", "1")
    assert examine("x", ["inactive", "active"] * 9).values == ("inactive", "active")


@pytest.mark.parametrize(
    "form",
    [
        "{n} °C",
        "{n},000",
        ">{n}",
        "{n}%",
        "-{n},5",
        "{n}-{n}2 °C",
        "{n} ± 0.5",
        "{n} kcal/mol",
        "~ {n}e-7 M",
        "−{n} mV",
    ],
)
def test_numbers_that_are_written_otherwise_are_named_as_such(form: str) -> None:
    column = examine("x", [form.format(n=n) for n in range(1, 60)])
    assert column.kind == "other"
    assert "write plain numbers" in column.why


def test_labels_that_differ_only_in_case_are_named() -> None:
    assert "'Active', 'active' differ only in case" in examine("x", ["Active", "active", "no"] * 20).why
