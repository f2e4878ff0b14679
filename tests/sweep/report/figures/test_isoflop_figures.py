from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

import pytest
from planted_sweep import TASKS, TRAINING, results_of, write_result

from bigchem.base.errors import UserError
from bigchem.sweep.analysis import analyse as whole
from bigchem.sweep.report.figures.isoflop import isoflop_figures
from bigchem.sweep.report.latex import latex_tables
from bigchem.sweep.report.page import to_html
from bigchem.sweep.report.tables import tables
from bigchem.sweep.scores.results import load

SIZES = (200_000, 400_000, 800_000, 1_600_000)
FLOPS = (1e12, 4e12)


def write_isoflops(folder: Path) -> Path:
    """Four sizes at two numbers of FLOPs, together and alone; the captioning loss is lowest at 400,000 parameters with
    fewer FLOPs, and at the largest size with more."""
    for flops in FLOPS:
        for size in SIZES:
            for mixture in (TASKS[:2], TASKS[:1]):
                content = results_of(size, mixture)
                for metric in content["metrics"]:
                    if metric["metric"] == "loss":
                        best = 400_000 if flops == FLOPS[0] else 3_200_000
                        metric["value"] = 2 + math.log10(size / best) ** 2 + 0.004 * math.sin(size)
                        metric["low"], metric["high"] = metric["value"] - 0.01, metric["value"] + 0.01
                steps = int(flops / size / 1000)
                training = TRAINING | {"flops": flops, "steps": steps, "steps_done": steps}
                training |= {"sweep": {"axes": {"flops": flops}}}
                write_result(folder, content | {"run": f"{content['run']}-{flops:.0e}", "training": training})
    return folder


def test_best_sizes_are_drawn_tabled_and_said_and_those_at_the_edge_are_not_determined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "_curves", lambda cells, keys: {})
    results = load([write_isoflops(tmp_path)], at=["flops=4e12"], allow_unequal_budgets=True)
    found = whole.analyse(results, ["captioning:loss"])
    assert found.claim.startswith("Budgets are not equal: different planned steps of the shared models")
    (figure,) = isoflop_figures(found)
    assert figure.name == "isoflop-captioning-loss"
    assert re.search(
        r"together: best size 0\.[34]\d*M \[[^]]+\] at 1e12 FLOPs, best size at the edge: not determined at 4e12 FLOPs",
        figure.caption,
    )
    rows = list(csv.DictReader(io.StringIO(figure.csv)))
    assert sum(row["what"] == "point" for row in rows) == 16
    (together, alone) = (row for row in rows if row["what"] == "best")
    assert float(together["parameters"]) == pytest.approx(400_000, rel=0.1)
    assert (together["series"], alone["series"]) == ("together", "alone")
    assert figure.inline.count('class="point"') == 16 + 2
    tabled = [row for row in tables(found)["isoflop"] if row["metric"] == "loss" and row["task"] == "captioning"]
    assert [row["verdict"] for row in tabled] == ["within", "edge"] * 2
    assert tabled[0]["low"] < tabled[0]["best"] < tabled[0]["high"]
    assert "at the edge: not determined" in latex_tables(found)["isoflop"]
    page = to_html(found, "IsoFLOP", [("Section", "", [figure])])
    assert "<h2>Best sizes at equal training FLOPs</h2>" in page


def test_the_claim_still_refuses_one_number_of_flops_as_the_sizes_budgets_differ(tmp_path: Path) -> None:
    folder = write_isoflops(tmp_path)
    with pytest.raises(UserError, match="runs differ by flops"):
        load([folder])
    with pytest.raises(UserError, match="different planned steps"):
        load([folder], at=["flops=1e12"])
