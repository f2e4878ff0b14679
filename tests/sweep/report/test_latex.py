from __future__ import annotations

import re
from pathlib import Path

import pytest
from planted_sweep import write_sweep

from bigchem.sweep.analysis import analyse as whole
from bigchem.sweep.report.latex import escaped, latex_tables, number
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.results import load


def test_tables_have_booktabs_rules_equal_columns_and_the_better_regime_in_bold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "_curves", lambda cells, keys: {})
    tables = latex_tables(whole.analyse(load([write_sweep(tmp_path)])))
    assert set(tables) == {"headline", "all-metrics", "trends"}
    for text in tables.values():
        columns = re.search(r"\\begin{tabular}{(\w+)}", text)
        assert columns is not None
        body = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {line.count(" & ") for line in body} == {len(columns[1]) - 1}
        assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    generation = next(line for line in tables["headline"].splitlines() if "generation & exact match & 5.2M" in line)
    together, alone = generation.split(" & ")[3:5]
    assert together.startswith(r"\textbf{\boldmath $")
    assert r"\textbf" not in alone
    assert "loss (nats per token)" in tables["all-metrics"]


def test_characters_of_latex_are_printed_as_they_are() -> None:
    assert escaped("50 % of a_b & {c} $ #~^\\") == (
        r"50 \% of a\_b \& \{c\} \$ \#\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert number(Estimate(-0.25, -0.5, 0.0), signed=True) == "$-0.250$ [$-0.500$, $+0.000$]"
    assert number(None) == "--"
