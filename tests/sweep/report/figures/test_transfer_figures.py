from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from planted_sweep import SIZES, TASKS, results_of, write_result

from bigchem.sweep.analysis import analyse as whole
from bigchem.sweep.report.figures.transfer import transfer_figures
from bigchem.sweep.scores.results import load


def test_transfer_is_drawn_and_its_runs_are_named_as_set_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "_curves", lambda cells, keys: {})
    for mixture in (TASKS[:3], *((task,) for task in TASKS[:3]), TASKS[:2], TASKS[1:3]):
        for seed in range(3):
            content = results_of(SIZES[0], mixture, seed, noise=0.01)
            write_result(tmp_path, content | {"run": f"{'+'.join(mixture)}-s{seed}"})
    found = whole.analyse(load([tmp_path]))
    (note,) = (note for note in found.notes if note.startswith("Set apart"))
    assert "6 runs on captioning + generation, generation + forward; the claim is about captioning + gen" in note
    figures = {figure.name: figure for figure in transfer_figures(found)}
    assert len(figures) == 4
    figure = figures[f"transfer-pair-headline-{SIZES[0]}"]
    assert figure.inline.count('class="point"') == 4
    assert "in headline metrics: generation helps captioning, captioning helps generation" in figure.caption
    first, *_ = rows = list(csv.DictReader(io.StringIO(figures[f"transfer-pair-headline-{SIZES[0]}"].csv)))
    assert [(row["task"], row["added"]) for row in rows] == [
        ("captioning", "generation"),
        ("generation", "captioning"),
        ("generation", "forward"),
        ("forward", "generation"),
    ]
    assert float(first["effect"]) == pytest.approx(0.010, abs=0.006)
