"""docs/notebooks/own_table.ipynb is stored without outputs, and its code runs, here without Jupyter."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from synthetic_rows import config, read

NOTEBOOK = Path(__file__).parents[3] / "docs" / "notebooks" / "own_table.ipynb"


def test_the_notebook_goes_from_a_table_to_the_lengths_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(cells)
    monkeypatch.chdir(tmp_path)
    rows = [row for row in read(config(seed=7, rows=300)) if row.task == "captioning"][:60]
    with Path("molecules.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("smiles", "caption"), *((row.source, row.target) for row in rows)])
    names: dict[str, Any] = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in cells:
            exec("".join(cell["source"]), names)  # noqa: S102
    assert names["task"] == "captioning"
    assert names["splits"].loc["captioning", "train"] > 30
    assert names["examples"]["source"].str.startswith("Caption").all()
    assert Path("lengths.pdf").read_bytes().startswith(b"%PDF")
