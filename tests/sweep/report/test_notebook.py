"""docs/notebooks: small, stored without outputs, and their code runs, here without Jupyter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from planted_sweep import SIZES, write_sweep

NOTEBOOK = Path(__file__).parents[3] / "docs" / "notebooks" / "analysis.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs() -> None:
    assert CELLS
    assert [(cell["outputs"], cell["execution_count"]) for cell in CELLS] == [([], None)] * len(CELLS)


def test_the_notebook_goes_from_results_to_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "runs" / "demo", sizes=SIZES[:2], seeds=(0, 1), noise=0.01)
    names: dict[str, Any] = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in CELLS:
            exec("".join(cell["source"]), names)  # noqa: S102
    assert names["panel"]._repr_svg_().startswith("<?xml")
    assert names["frames"]["gain"]["parameters"].nunique() == 2
    assert "For cross-domain tasks (captioning and generation), " in capsys.readouterr().out
    for figure in ("claim.pdf", "gain.pdf"):
        assert (tmp_path / figure).read_bytes().startswith(b"%PDF")
    assert r"\toprule" in (tmp_path / "captioning.tex").read_text()
