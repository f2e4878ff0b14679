"""Gains from the predictions that `bigchem evaluate` writes beside results.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from planted_sweep import write_predictions

from bigchem.base.progress import Progress
from bigchem.evaluate.compare import compare_files
from bigchem.evaluate.score import score_file
from bigchem.sweep.analysis.paired import paired_differences
from bigchem.sweep.analysis.results import load
from bigchem.sweep.report.write_report import study
from bigchem.tasks import shipped

TOGETHER = [n % 4 != 0 for n in range(40)]
ALONE = [n % 4 != 0 and n % 5 != 0 for n in range(40)]


def evaluated(folder: Path, mixture: dict[str, float], right: list[bool]) -> Path:
    """A run's results, scored from its predictions."""
    file = write_predictions(folder / "results" / "predictions" / "forward.jsonl", right)
    content = {
        "schema": 1,
        "run": folder.name,
        "model": {"preset": "sweep-1m", "parameters": 1_000_000, "sha256": "ab"},
        "mixture": mixture,
        "seed": 0,
        "step": 10,
        "tokens": 100,
        "data_fingerprint": "f",
        "split": "test",
        "decoding": {"num_beams": 1},
        "protocol": "bigchem",
        "metrics": [asdict(score) for score in score_file(shipped()["forward"], file, bootstrap=200)],
    }
    (folder / "results" / "results.json").write_text(json.dumps(content))
    return file


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return (
        evaluated(tmp_path / "alone", {"forward": 1.0}, ALONE),
        evaluated(tmp_path / "all", {"forward": 1.0, "actions": 1.0}, TOGETHER),
    )


def test_a_gain_has_the_interval_of_the_paired_bootstrap(files: tuple[Path, Path], tmp_path: Path) -> None:
    analysis = study([tmp_path])
    (gain,) = analysis.gains_of(("forward", "top1"))
    expected = {d.metric: d for d in compare_files(shipped()["forward"], *files, bootstrap=1000)}["top1"]
    assert gain.paired == 1
    assert (gain.estimate.value, gain.estimate.low, gain.estimate.high) == pytest.approx(
        (expected.difference, expected.low, expected.high)
    )
    assert any("are by paired bootstrap" in note for note in analysis.notes)


def test_pairs_tell_apart_what_independent_intervals_do_not(files: tuple[Path, Path], tmp_path: Path) -> None:
    (paired,) = study([tmp_path]).gains_of(("forward", "top1"))
    (independent,) = study([tmp_path], independent=True).gains_of(("forward", "top1"))
    assert paired.estimate.sign == 1
    assert independent.estimate.sign == 0
    assert independent.paired == 0


def test_predictions_of_other_examples_are_told_and_taken_as_independent(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    write_predictions(files[0], ALONE[:-1])
    found, notes = paired_differences(load([tmp_path]), Progress(quiet=True))
    assert found == {}
    assert len(notes) == 1
    assert notes[0].startswith("Compared as independent: forward, all and alone: ")


def test_predictions_that_are_not_those_of_the_recorded_scores_are_not_compared(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    write_predictions(files[0], [*ALONE[:-1], not ALONE[-1]])
    found, notes = paired_differences(load([tmp_path]), Progress(quiet=True))
    assert ("forward", "top1", 1_000_000, 0) not in found
    assert "no longer score as recorded" in notes[0]
    assert "top1" in notes[0]
