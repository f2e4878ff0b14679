from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planted_sweep import SIZES, TASKS, TRAINING, results_of, write_result

from bigchem.base.errors import UserError
from bigchem.sweep.scores.records import Results
from bigchem.sweep.scores.results import load


def load_sizes(folder: Path, *changes: dict[str, Any] | None, allow: bool = False) -> Results:
    """Shared models of rising size, whose training records differ from TRAINING by `changes`; None: no record."""
    for size, change in zip(SIZES, changes, strict=True):
        record = None if change is None else {**TRAINING, **change}
        write_result(folder, results_of(size, TASKS) | ({} if record is None else {"training": record}))
    return load([folder], allow_unequal_budgets=allow)


def test_equal_budgets_need_no_word(tmp_path: Path) -> None:
    found = load_sizes(tmp_path, {}, {}, {})
    assert (found.caveats, found.notes) == ((), ())
    assert found.runs[0].training is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 3, "steps_done": 3}, r"different planned steps of the shared models: 300 \(.*\) and 3 \("),
        ({"global_tokens": 40}, "different tokens of a step of the shared models: 4000 .* and 40 "),
        ({"steps_done": 20}, "is unfinished: step 20 of 300"),
        ({"lr": 3e-4}, "different learning rates of the shared models: 0.001 .* and 0.0003 "),
        ({"schedule": {"kind": "linear"}}, "different schedules .*'cosine'.* and kind 'linear'"),
        ({"init_from": "google-t5/t5-base"}, "different initial weights .*: random .* and pretrained"),
    ],
)
def test_a_size_trained_otherwise_is_refused_by_file_and_value_and_allowed_with_a_caveat(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_sizes(tmp_path, {}, {}, change)
    assert "--allow-unequal-budgets" in str(error.value)
    assert f"sweep-{SIZES[2]}" in str(error.value.where)
    (caveat,) = load_sizes(tmp_path, {}, {}, change, allow=True).caveats
    assert caveat.startswith("Budgets are not equal: ")


def test_budgets_of_different_mixtures_are_not_compared(tmp_path: Path) -> None:
    write_result(tmp_path, results_of(SIZES[0], TASKS) | {"training": TRAINING})
    write_result(tmp_path, results_of(SIZES[1], TASKS[:2]) | {"training": {**TRAINING, "global_tokens": 800}})
    assert load([tmp_path], allow_mixed=True).caveats == ()


def test_a_run_that_ended_early_by_design_is_finished(tmp_path: Path) -> None:
    early = {"steps_done": 200, "early": "no new best in 5 validations"}
    assert load_sizes(tmp_path, {}, early, {}).caveats == ()


def test_learning_rates_that_the_sweep_chose_by_size_are_noted_but_not_within_a_size(tmp_path: Path) -> None:
    chosen = [{"lr": lr, "sweep": {"per_size": ["optimizer.lr"]}} for lr in (3e-3, 1e-3, 3e-4)]
    (note,) = load_sizes(tmp_path, *chosen).notes
    assert note == "The sweep sets learning rates by size: 0.003 at 0.2M; 0.001 at 1M; 0.0003 at 5.2M."
    other_seed = {**TRAINING, "lr": 1e-4, "sweep": {"per_size": ["optimizer.lr"]}}
    write_result(tmp_path, results_of(SIZES[0], TASKS, seed=1) | {"training": other_seed})
    with pytest.raises(UserError, match="different learning rates"):
        load([tmp_path])


def test_learning_rates_chosen_on_validation_are_noted_as_such(tmp_path: Path) -> None:
    chosen = {"sweep": {"selected": {"optimizer.lr": {"0.003": 2.0, "0.001": 2.1}}}}
    (note,) = load_sizes(tmp_path, *({"lr": lr, **chosen} for lr in (3e-3, 1e-3, 1e-3))).notes
    assert note.startswith(
        "The sweep chooses learning rates on validation, by size and mixture: 0.003 at 0.2M; 0.001 at"
    )


def test_without_a_record_budgets_are_unknown_and_differing_tokens_are_told(tmp_path: Path) -> None:
    for size, tokens in zip(SIZES, (1_200_000, 1_190_000, 12_000), strict=True):
        write_result(tmp_path, results_of(size, TASKS) | {"tokens": tokens})
    (note,) = load([tmp_path]).notes
    assert note.startswith("Budgets are unknown for results without a training record: 3 of 3 runs")
    assert "the shared models from 12,000 to 1,200,000 tokens" in note


def test_how_alone_was_matched_is_said_with_its_ratios(tmp_path: Path) -> None:
    alone = {
        "global_tokens": 800,
        "examples": {"captioning": 3000},
        "tokens": {"captioning": 240_000},
        "flops": 1.5e11,
        "sweep": {"alone": "examples"},
    }
    for size in SIZES[:2]:
        write_result(tmp_path, results_of(size, TASKS) | {"training": TRAINING})
        write_result(tmp_path, results_of(size, ("captioning",)) | {"training": {**TRAINING, **alone}})
    (note,) = load([tmp_path]).notes
    assert note.startswith('Alone is matched with together by "examples": a task is seen as often alone as together')
    assert note.endswith("1.00 times the examples of the task, 0.20 times the tokens, 0.15 times the FLOPs.")
