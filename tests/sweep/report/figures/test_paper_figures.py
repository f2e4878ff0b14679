from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from planted_sweep import SIZES, write_sweep

from bigchem.sweep.analysis import analyse as whole
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.report.figures.drawing import Panel
from bigchem.sweep.report.figures.paper import claim_figure, forest_figure
from bigchem.sweep.scores.results import load


@pytest.fixture
def analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Analysis:
    monkeypatch.setattr(whole, "_curves", lambda cells, keys: {})
    return whole.analyse(load([write_sweep(tmp_path)]))


def rows(panel: Panel | None) -> list[dict[str, str]]:
    assert panel is not None
    assert panel.pdf.startswith(b"%PDF")
    return list(csv.DictReader(io.StringIO(panel.csv)))


def test_the_claims_figure_has_each_tasks_gains_and_the_band_of_the_mean(analysis: Analysis) -> None:
    """In metrics and in losses: the name of a series says in which."""
    found = rows(claim_figure(analysis))
    for metric, expected in (("bleu4_words", [0.010, 0.0311, 0.0522]), ("loss", [0.05, 0.0641, 0.0782])):
        captioning = [row for row in found if row["series"] == f"captioning {metric}"]
        assert [float(row["value"]) for row in captioning] == pytest.approx(expected, abs=0.001)
    for of in ("headline", "loss"):
        band = [row for row in found if row["series"] == f"cross-domain mean {of}" and row["what"] == "curve"]
        assert band
        assert all(float(row["low"]) < float(row["value"]) < float(row["high"]) for row in band)


def test_a_kind_with_one_task_is_drawn_with_that_tasks_intervals(analysis: Analysis) -> None:
    """There is no mean to carry them."""
    pools = tuple(replace(pool, tasks=("captioning",)) for pool in analysis.pools if pool.kind == "cross-domain")
    panel = claim_figure(replace(analysis, pools=pools))
    assert panel is not None
    assert panel.svg.count('"claim-LineCollection') == 2, "error bars, in metrics and in losses"


def test_the_forest_has_every_metric_at_the_largest_size_and_losses_as_shares_removed(analysis: Analysis) -> None:
    found = {row["series"]: row for row in rows(forest_figure(analysis))}
    assert len(found) == 11
    assert {row["parameters"] for row in found.values()} == {str(SIZES[-1])}
    alone = 2.10 - 0.40 * 1.4083
    assert float(found["captioning loss"]["value"]) == pytest.approx(100 * (0.05 + 0.02 * 1.4083) / alone, abs=0.1)
