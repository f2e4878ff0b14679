from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from planted_sweep import SIZES, TASKS, TRAINING, results_of, write_result

from bigchem.base.errors import UserError
from bigchem.sweep.analysis import analyse as whole
from bigchem.sweep.report.figures.size_axes import size_axis_figures
from bigchem.sweep.scores.results import load


def test_metrics_are_drawn_against_the_training_flops_of_their_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "_curves", lambda cells, keys: {})
    for size in SIZES[:2]:
        for mixture in (TASKS[:2], TASKS[:1]):
            flops = 6.0 * size * len(mixture)
            write_result(tmp_path, results_of(size, mixture) | {"training": TRAINING | {"flops": flops}})
    found = whole.analyse(load([tmp_path]), x="flops")
    figures = {figure.name: figure for figure in size_axis_figures(found, "flops")}
    figure = figures["captioning-loss-flops"]
    assert figure.inline.count('class="point"') == 4
    falls = "falls from 2.5e06 to 1.2e07 together and falls from 1.2e06 to 6.2e06 alone"
    assert figure.caption == f"captioning loss against training FLOPs {falls}"
    rows = list(csv.DictReader(io.StringIO(figures["captioning-loss-flops"].csv)))
    assert [(row["series"], float(row["x"]), int(row["parameters"])) for row in rows] == [
        *(("together", 12.0 * size, size) for size in SIZES[:2]),
        *(("alone", 6.0 * size, size) for size in SIZES[:2]),
    ]


def test_a_run_without_the_measure_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path, results_of(SIZES[0], TASKS))
    with pytest.raises(UserError, match="parameters without embeddings of sweep-204800-all-s0 are unknown"):
        whole.analyse(load([tmp_path]), x="non_embedding")
