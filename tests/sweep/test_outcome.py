"""A sweep's results so far, read from run folders."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from planted_sweep import TRAINING
from rich.console import Console

from bigchem.base.errors import UserError
from bigchem.launch.runs.status import RunStatus
from bigchem.sweep.outcome import Outcome, outcome, table, to_csv, to_json
from bigchem.sweep.scores.results import load


def metric(name: str, value: float | None, task: str = "forward") -> dict[str, object]:
    """A row of results.json."""
    low, high = (None, None) if value is None else (value - 0.01, value + 0.01)
    return {
        "task": task,
        "metric": name,
        "value": value,
        "low": low,
        "high": high,
        "n": 9,
        "definition": "d",
        "note": "",
        "higher_is_better": True,
    }


def made(tmp_path: Path, name: str, metrics: list[dict[str, object]], step: int = 9) -> Path:
    results = {
        "schema": 1,
        "run": name,
        "model": {"preset": "sweep-1m", "parameters": 10**6, "sha256": "x"},
        "mixture": {"forward": 1.0, "captioning": 1.0},
        "seed": 0,
        "step": step,
        "tokens": 5,
        "data_fingerprint": "f",
        "split": "test",
        "decoding": {},
        "protocol": "p",
        "metrics": metrics,
    }
    (tmp_path / name / "results").mkdir(parents=True)
    (tmp_path / name / "results" / "results.json").write_text(json.dumps(results))
    return tmp_path / name


@pytest.fixture
def found(tmp_path: Path) -> list[Outcome]:
    """A complete run, one evaluated before its current step, one that failed."""
    whole = [metric("top1", 0.25), metric("validity", 0.5), metric("bleu4", None, "captioning")]
    (tmp_path / "none").mkdir()
    return [
        outcome(made(tmp_path, "whole", whole), RunStatus("whole", "finished", False, 9, 9)),
        outcome(made(tmp_path, "old", [metric("top1", 0.75)], 3), RunStatus("old", "running", True, 6, 9)),
        outcome(tmp_path / "none", RunStatus("none", "failed", False, 2, 9, reason="no memory")),
    ]


def test_a_finished_run_whose_best_step_is_not_its_last_misses_nothing(tmp_path: Path) -> None:
    run = made(tmp_path, "best", [metric("top1", 0.5)], step=3)
    file = run / "results" / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"training": TRAINING | {"steps_done": 9}}))
    assert outcome(run, RunStatus("best", "finished", False, 9, 9)).missing is None
    assert "step 9" in (outcome(run, RunStatus("best", "running", True, 12, 20)).missing or "")


def text(found: list[Outcome], *metrics: str) -> list[list[str]]:
    out = io.StringIO()
    Console(file=out, width=200).print(table(found, metrics))
    return [[word for word in line.split("  ") if word.strip()] for line in out.getvalue().splitlines()]


def test_a_row_holds_headlines_with_their_intervals_and_what_is_missing(found: list[Outcome]) -> None:
    rows = [" ".join(word.strip() for word in row) for row in text(found)]
    assert rows[0] == "forward"  # no caption has a metric with a value
    assert rows[1] == "run top1 missing"
    assert rows[2] == "whole 0.2500 [0.2400, 0.2600] n 9"
    assert rows[3] == "old 0.7500 [0.7400, 0.7600] n 9 results are from step 3; the run is running at 6"
    assert rows[4] == "none - failed at 2/9: no memory"


def test_other_metrics_can_be_asked_for(found: list[Outcome]) -> None:
    rows = [" ".join(word.strip() for word in row) for row in text(found, "forward:validity", "captioning:bleu4")]
    assert rows[1] == "run validity bleu4 missing"
    assert rows[2] == "whole 0.5000 [0.4900, 0.5100] n 9 n/a"
    with pytest.raises(UserError, match="no results for 'forward:top2'"):
        table(found, ["forward:top2"])


def test_a_sweeps_own_metrics_stand_in_for_the_headlines_as_far_as_there_are_results(found: list[Outcome]) -> None:
    usual = ("forward:validity", "forward:loss")
    assert [c.header for c in table(found, usual=usual).columns] == ["run", "forward\nvalidity", "missing"]
    assert [c.header for c in table(found, ["forward:top1"], usual).columns][1] == "forward\ntop1"
    assert [c.header for c in table(found, usual=["forward:loss"]).columns][1] == "forward\ntop1"


def test_the_csv_is_what_the_report_reads(found: list[Outcome], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(to_csv(found[:1]))
    read = load([tmp_path / "x.csv"])
    assert [(s.task, s.metric, s.estimate and s.estimate.value, s.n) for s in read.scores] == [
        ("forward", "top1", 0.25, 9),
        ("forward", "validity", 0.5, 9),
        ("captioning", "bleu4", None, 9),
    ]
    assert len(list(csv.DictReader(io.StringIO(to_csv(found))))) == 4


def test_json_has_all_metrics_and_says_what_is_missing(found: list[Outcome]) -> None:
    rows = json.loads(json.dumps(to_json(found)))
    assert [row["missing"] is None for row in rows] == [True, False, False]
    assert rows[0]["metrics"][0] == metric("top1", 0.25)
