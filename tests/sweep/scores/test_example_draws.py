"""All runs of a sweep over the same resamples of the test examples."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigchem.base.progress import Progress
from bigchem.evaluate.compare import compare_files
from bigchem.evaluate.metrics import molecules
from bigchem.evaluate.metrics.intervals import percentiles
from bigchem.evaluate.protocol.pairs import Pairs
from bigchem.evaluate.score import score_file
from bigchem.sweep.scores import example_draws as module
from bigchem.sweep.scores.example_draws import ExampleDraws, example_draws
from bigchem.sweep.scores.records import Results, Run
from bigchem.sweep.scores.results import load
from bigchem.tasks import shipped

EXAMPLES = 200
QUIET = Progress(quiet=True)
WORDS = ["ADD water (5 mL);", "STIR for 1 h;", "FILTER keep filtrate;", "WASH with brine;", "DRYSOLUTION over MgSO4;"]


def lines_of(skill: float, seed: int, losses: bool = True) -> list[dict[str, Any]]:
    """Predictions of actions: the more skill, the more of the actions are right; most of what varies is each example's
    difficulty, the same for every run."""
    difficulty, rng = np.random.default_rng(0).random(EXAMPLES), np.random.default_rng(1000 + seed)
    lines = []
    for number, hard in enumerate(difficulty):
        target = [WORDS[(number + place) % 5] for place in range(4)]
        right = round(1 + 3 * min(1.0, max(0.0, 1 + skill - hard)))
        line = {"source": f"step {number}", "target": " ".join(target), "predictions": [" ".join(target[:right])]}
        if losses:
            line["loss_and_tokens"] = [round(10 * (3 * hard - skill + rng.normal(0, 0.05)) + 10, 6), 10]
        lines.append(line)
    return lines


def evaluated(folder: Path, run: str, lines: list[dict[str, Any]], parameters: int = 10**6, seed: int = 0) -> Path:
    """A run's results, scored from its predictions; the file of predictions."""
    file = folder / run / "results" / "predictions" / "actions.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = {
        "schema": 1,
        "run": run,
        "model": {"preset": "x", "parameters": parameters, "sha256": "ab"},
        "mixture": {"actions": 1.0},
        "seed": seed,
        "step": 10,
        "tokens": 100,
        "data_fingerprint": "f",
        "split": "test",
        "decoding": {"num_beams": 1},
        "protocol": "bigchem",
        "metrics": [asdict(score) for score in score_file(shipped()["actions"], file)],
    }
    (file.parents[1] / "results.json").write_text(json.dumps(content))
    return file


def drawn(folder: Path) -> tuple[ExampleDraws, tuple[str, ...], Results]:
    results = load([folder])
    return *example_draws(results, QUIET), results


def of(draws: ExampleDraws, results: Results, metric: str) -> dict[str, np.ndarray]:
    """Run -> its draws of a metric of actions."""
    keys = {run.name: ("actions", metric, id(run)) for run in results.runs}
    return {name: draws.values[key] for name, key in keys.items() if key in draws.values}


def test_two_runs_have_the_paired_intervals_of_compare(tmp_path: Path) -> None:
    """Of corpus BLEU, a ratio and the loss; one of the files is in another order."""
    first = evaluated(tmp_path, "a", lines_of(0.0, 0))
    second = evaluated(tmp_path, "b", lines_of(0.3, 1)[::-1], seed=1)
    draws, notes, results = drawn(tmp_path)
    compared = {d.metric: d for d in compare_files(shipped()["actions"], first, second)}
    for metric in ("bleu2", "precision", "loss"):
        found, expected = of(draws, results, metric), compared[metric]
        assert percentiles(found["b"] - found["a"]) == pytest.approx((expected.low, expected.high), rel=1e-9)
        assert expected.low < expected.high
    assert notes == ()


def test_difficulty_that_all_runs_share_cancels(tmp_path: Path) -> None:
    """In the slope of the loss over three sizes, whose noise at each size is that of the examples' difficulty."""
    for number, parameters in enumerate((10**6, 10**7, 10**8)):
        evaluated(tmp_path, f"r{number}", lines_of(0.1 * number, number), parameters)
    draws, _, results = drawn(tmp_path)
    loss = of(draws, results, "loss")
    slopes = (loss["r2"] - loss["r0"]) / 2
    independent = np.hypot(loss["r2"].std(), loss["r0"].std()) / 2
    assert slopes.mean() == pytest.approx(-0.1, abs=0.01)
    assert slopes.std() < 0.1 * independent


def test_runs_that_do_not_fit_are_left_out_and_named_and_others_keep_their_draws(tmp_path: Path) -> None:
    """The odd one comes first: most runs decide which examples are resampled."""
    evaluated(tmp_path, "other", lines_of(0.0, 0)[:-1], parameters=10**5)
    for number in range(2):
        evaluated(tmp_path, f"r{number}", lines_of(0.1 * number, number), seed=number)
    file = evaluated(tmp_path, "changed", lines_of(0.2, 2), seed=2)
    file.write_text("".join(json.dumps({**line, "predictions": ["ADD water"]}) + "\n" for line in lines_of(0.2, 2)))
    evaluated(tmp_path, "broken", lines_of(0.2, 3), seed=3).write_text("no JSON\n")
    draws, notes, results = drawn(tmp_path)
    assert of(draws, results, "bleu2").keys() == {"r0", "r1"}
    assert of(draws, results, "loss").keys() == {"r0", "r1", "changed"}
    assert "actions, other test examples than changed (seed 2): other (seed 0)" in " ".join(notes)
    assert any("no longer as recorded: " in note and note.endswith(": changed (seed 2).") for note in notes)
    assert any("not JSON" in note and note.endswith(": broken (seed 3).") for note in notes)


def test_a_metric_that_one_run_lacks_is_absent_there_alone(tmp_path: Path) -> None:
    old = evaluated(tmp_path, "old", lines_of(0.0, 0))
    old.write_text("".join(json.dumps(line) + "\n" for line in lines_of(0.0, 0, losses=False)))
    evaluated(tmp_path, "new", lines_of(0.2, 1), seed=1)
    draws, notes, results = drawn(tmp_path)
    assert of(draws, results, "loss").keys() == {"new"}
    assert of(draws, results, "bleu2").keys() == {"old", "new"}
    (note,) = (note for note in notes if "the loss" in note)
    assert note.endswith(": old (seed 0).")


def test_losses_of_few_examples_are_not_called_those_of_an_earlier_version(tmp_path: Path) -> None:
    evaluated(tmp_path, "short", lines_of(0.0, 0)[:8])
    _, notes, _ = drawn(tmp_path)
    assert not any("earlier version" in note for note in notes)
    assert any("fewer than 10 examples in one run or all: " in note and "actions loss" in note for note in notes)


def test_processes_draw_what_one_process_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        evaluated(tmp_path, f"r{number}", lines_of(0.1 * number, number), seed=number)
    alone, _, results = drawn(tmp_path)
    monkeypatch.setattr(module, "SMALL", 1)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda process: {0, 1})
    shared, _ = example_draws(results, QUIET)
    assert shared.values.keys() == alone.values.keys()
    assert all(np.array_equal(shared.values[key], alone.values[key], equal_nan=True) for key in alone.values)


def test_a_distance_between_distributions_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Fréchet ChemNet distance takes seconds a run, and is no sum over examples."""
    asked: list[str] = []
    monkeypatch.setattr(molecules, "frechet_distance", lambda *lists: asked.append("fcd") or 0.0)
    alkanes = ["C" * (1 + n % 8) for n in range(EXAMPLES)]
    found = module._resampled(shipped()["generation"], Pairs(alkanes, alkanes, [[one] for one in alkanes]), 10, 0)
    assert {"exact", "maccs"} <= found.values.keys()
    assert not asked


def test_a_metric_whose_files_are_missing_here_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIGCHEM_SCIBERT", raising=False)
    texts = [f"a molecule of {n} atoms" for n in range(EXAMPLES)]
    drawn = module._resampled(shipped()["captioning"], Pairs(texts, texts, [[one] for one in texts]), 10, 0)
    assert "bleu4_words" in drawn.values
    assert "BIGCHEM_SCIBERT" in drawn.missing["bleu4"]
    left_out, run = module._LeftOut(), Run("r", 10**6, "alone", 0, "r/results/results.json")
    module._confirmed("captioning", run, drawn, {"bleu4": 0.5}, left_out, has_losses=False)
    (note,) = left_out.notes()
    assert "n/a on this machine or from predictions alone" in note
    assert note.endswith("captioning bleu4.")
