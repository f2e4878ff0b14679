from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted_sweep import SIZES, TASKS, results_of, write_predictions, write_result, write_sweep

from bigchem.base.errors import UserError
from bigchem.sweep.scores.records import scale_of
from bigchem.sweep.scores.results import load
from bigchem.sweep.scores.score_table import MAIN_COLUMNS

HEAD = ",".join(MAIN_COLUMNS)


def one(**changes: Any) -> dict[str, Any]:
    return results_of(SIZES[0], ("captioning",)) | changes


def test_folders_are_searched_for_results_but_not_probes_and_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    write_sweep(tmp_path, sizes=SIZES[:1])
    file = next(tmp_path.glob("**/results.json"))
    write_result(tmp_path, results_of(SIZES[0], TASKS) | {"run": "probe", "seed": 1})
    for asked in ("canonical", "random"):
        probed = file.parent / "probe" / asked / "results.json"
        probed.parent.mkdir(parents=True)
        probed.write_bytes(file.read_bytes())
    results = load([tmp_path, file])
    assert len(results.runs) == 2 + len(TASKS)
    assert len(load([probed.parent]).runs) == 1
    assert {run.regime for run in results.runs} == {"together", "alone"}


def test_the_regime_follows_the_number_of_trained_tasks(tmp_path: Path) -> None:
    write_result(tmp_path, one(mixture={"captioning": 2.0, "forward": 0.0}))
    (run,) = load([tmp_path]).runs
    assert run.regime == "alone"
    assert run.mixture == {"captioning": 1.0}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema": 2}, "schema"),
        ({"seed": "zero"}, "seed"),
        ({"mixture": {}}, "mixture"),
        ({"mixture": {"caption": 1.0}}, "mixture"),
        ({"model": {"preset": "p", "parameters": 0, "sha256": ""}}, "model.parameters"),
        ({"metrics": [{"task": "captioning", "metric": "bleu4"}]}, "metrics[0]: `value` is missing"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    file = write_result(tmp_path, one(**change))
    with pytest.raises(UserError) as error:
        load([file])
    assert field in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1, "seed": NaN}'])
def test_what_is_not_a_results_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"results\.json"):
        load([file])


def test_missing_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load([tmp_path / "nothing.json"])
    with pytest.raises(UserError, match=r"no results\.json"):
        load([tmp_path])


def test_other_data_is_refused_and_told_when_allowed(tmp_path: Path) -> None:
    write_result(tmp_path, results_of(SIZES[0], ("captioning",)))
    write_result(tmp_path, results_of(SIZES[1], ("captioning",)) | {"data_fingerprint": "e" * 16})
    with pytest.raises(UserError, match="different data fingerprints"):
        load([tmp_path])
    assert any("different data fingerprints" in note for note in load([tmp_path], allow_mixed=True).notes)


def test_other_definitions_splits_decodings_and_mixtures_are_refused(tmp_path: Path) -> None:
    changed = results_of(SIZES[1], ("captioning",))
    changed["metrics"][1]["definition"] = "bleu4_words/v2"
    shared = results_of(SIZES[1], ("captioning", "forward"))
    for number, (content, name) in enumerate(
        (
            (changed, "definitions of captioning bleu4_words"),
            (results_of(SIZES[1], ("captioning",)) | {"split": "valid"}, "splits"),
            (results_of(SIZES[1], ("captioning",)) | {"decoding": {"num_beams": 5}}, "decodings"),
            (shared, "mixtures"),
        )
    ):
        folder = tmp_path / str(number)
        write_result(folder, results_of(SIZES[0], TASKS))
        write_result(folder, content)
        with pytest.raises(UserError, match=f"different {name}"):
            load([folder])


def test_two_runs_of_one_cell_are_not_taken_for_seeds(tmp_path: Path) -> None:
    write_result(tmp_path, one(run="a"))
    write_result(tmp_path, one(run="b"))
    with pytest.raises(UserError, match="two runs of 204800 parameters"):
        load([tmp_path])


def test_of_a_run_evaluated_at_two_steps_the_last_counts_and_it_is_said(tmp_path: Path) -> None:
    early = write_result(tmp_path, one(step=100)).parent
    early.rename(early.with_name("results-100"))
    write_result(tmp_path, one(step=300))
    results = load([tmp_path])
    assert {run.step for run in results.runs} == {300}
    assert any("1 result files of earlier steps" in note for note in results.notes)


def test_runs_of_one_name_in_two_sweeps_are_not_taken_for_steps_of_one(tmp_path: Path) -> None:
    write_result(tmp_path / "sweep", one(step=100))
    write_result(tmp_path / "other", one(step=300))
    with pytest.raises(UserError, match="two runs of 204800 parameters"):
        load([tmp_path])


def test_scores_of_untrained_tasks_are_left_out_and_counted(tmp_path: Path) -> None:
    content = results_of(SIZES[0], TASKS) | {"mixture": {"captioning": 1.0}}
    write_result(tmp_path, content)
    results = load([tmp_path])
    assert {score.task for score in results.scores} == {"captioning"}
    assert any("not trained on" in note for note in results.notes)


def test_results_without_any_score_are_refused(tmp_path: Path) -> None:
    file = write_result(tmp_path, one(metrics=[]))
    with pytest.raises(UserError, match="no scores") as error:
        load([file])
    assert str(file) in str(error.value)


def test_a_table_of_foreign_models_is_read_with_its_gaps(tmp_path: Path) -> None:
    file = tmp_path / "molt5.csv"
    file.write_text(
        f"{HEAD}\n60506624,captioning,alone,bleu4,0.436,,,0,molt5-small\n247577856,captioning,alone,bleu4,,,,0,x\n"
    )
    results = load([file])
    first, second = results.scores
    assert first.estimate is not None
    assert first.estimate.value == 0.436
    assert first.estimate.low is None
    assert second.estimate is None
    assert any("molt5-small" in note for note in results.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters,task\n", "no column 'regime'"),
        ("parameters,task,regime,score\n", "unknown column 'score'"),
        ("parameters,task,regime,task\n", "duplicate column"),
        (f"{HEAD}\n1,captioning,both,bleu4,0.4,,,0,x\n", "regime"),
        (f"{HEAD}\n1,captioning,alone,bleu4,high,,,0,x\n", "value"),
        (f"{HEAD}\n1,captions,alone,bleu4,0.4,,,0,x\n", "unknown task 'captions'"),
        (f"{HEAD}\n1,captioning,alone,bleu4,0.4,0.5,0.3,0,x\n", "above"),
        (f"{HEAD}\n1,captioning,alone,bleu4,0.4,0.3,,0,x\n", "one end of an interval"),
        (f"{HEAD}\n1,captioning,alone\n", "not 9 fields"),
        (f"{HEAD}\n1,captioning,,bleu4,0.4,,,0,x\n", "neither or both of 'regime' and 'mixture'"),
        (f"{HEAD}\n1,captioning,alone,,0.4,,,0,x\n", "neither 'metric' nor 'predictions'"),
        (
            f"{HEAD}\n1,captioning,alone,bleuw4,0.4,,,0,x\n",
            "unknown metric 'bleuw4'\nnext: did you mean bleu4 or bleu or",
        ),
        (
            f"{HEAD}\n1,captioning,alone,foo,0.4,,,0,x\n",
            "unknown metric 'foo'\nnext: bigchem/evaluate/protocol has",
        ),
        ("parameters,task,mixture,metric\n1,forward,captioning+actions,top1\n", "'forward' is not in the mixture"),
        ("parameters,task,mixture,metric\n1,forward,forward+acts,top1\n", "unknown task 'acts'"),
        ("parameters,task,regime,metric,predictions\n1,forward,alone,top1,a.txt\n", "'metric' beside 'predictions'"),
        ("parameters,task,regime,predictions\n1,forward,alone,absent.txt\n", "no such file"),
    ],
)
def test_a_wrong_table_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load([file])
    if message != "no such file":  # the predictions' own error names that file
        line = 1 if message.startswith(("no column", "unknown column", "duplicate column")) else 2
        assert f"{file}:{line}" in str(error.value)


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        (
            HEAD,
            ["1,forward,alone,top1,0.1,,,0,x", "1,forward,alone,top1,0.2,,,0,x"],
            "top1 of the run 'x' .* given twice",
        ),
        (
            "parameters,task,mixture,metric,run",
            ["1,forward,forward,top1,x", "1,actions,actions,bleu2,x"],
            "'x' has two mixtures, forward and actions",
        ),
    ],
)
def test_rows_of_one_run_that_contradict_each_other_are_told_with_the_second_line(
    tmp_path: Path, head: str, rows: list[str], message: str
) -> None:
    file = tmp_path / "scores.csv"
    file.write_text("\n".join([head, *rows]))
    with pytest.raises(UserError, match=message) as error:
        load([file])
    assert error.value.where == f"{file}:3"


def test_models_without_a_run_are_told_apart_by_their_mixtures(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"  # as Excel saves it
    rows = "1,captioning,captioning,bleu4,0.4\n1,generation,generation,bleu,0.5\n"
    file.write_text(f"parameters,task,mixture,metric,value\n{rows}", encoding="utf-8-sig")
    assert {run.name: run.mixture for run in load([file]).runs} == {
        "1-captioning": {"captioning": 1.0},
        "1-generation": {"generation": 1.0},
    }


@pytest.mark.parametrize(
    ("text", "parameters"), [("2.5E+08", 250_000_000), ("7e3", 7000), ("9007199254740993", 2**53 + 1)]
)
def test_parameters_may_be_written_as_a_spreadsheet_does(tmp_path: Path, text: str, parameters: int) -> None:
    (tmp_path / "scores.csv").write_text(f"parameters,task,regime,metric,value\n{text},forward,alone,top1,0.5\n")
    (tmp_path / "scores.json").write_text(
        f'[{{"parameters": {text}, "task": "forward", "regime": "alone", "metric": "top1", "value": 0.5}}]'
    )
    for name in ("scores.csv", "scores.json"):
        assert load([tmp_path / name]).runs[0].parameters == parameters


@pytest.mark.parametrize("text", ["2.5", "inf", "many", "-3"])
def test_parameters_that_are_no_whole_number_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.csv").write_text(f"parameters,task,regime,metric,value\n{text},forward,alone,top1,0.5\n")
    with pytest.raises(UserError, match="parameters"):
        load([tmp_path / "scores.csv"])


def test_directions_and_bounds_come_from_the_protocol() -> None:
    assert scale_of("bleu4").higher_is_better
    assert not any(scale_of(name).higher_is_better for name in ("levenshtein", "loss", "rmse"))
    assert [name for name in ("bleu4", "spearman", "r2", "rmse", "loss") if scale_of(name).bounded] == [
        "bleu4",
        "spearman",
    ]
    assert scale_of("mcc").lowest == -1.0
    with pytest.raises(UserError, match="unknown metric"):
        scale_of("perplexity")


def test_the_direction_of_a_packages_metric_is_the_files_and_its_bounds_are_unknown() -> None:
    assert not scale_of("perplexity", stated=False).higher_is_better
    assert scale_of("fluency", stated=True).higher_is_better
    assert not scale_of("fluency", stated=True).bounded
    with pytest.raises(UserError, match="rmse: `higher_is_better` is True, but it is bigchem's"):
        scale_of("rmse", stated=True, where="x")


def test_a_table_in_json_says_the_same_as_in_csv(tmp_path: Path) -> None:
    row = {"parameters": 10, "task": "forward", "mixture": "forward+actions", "metric": "top1", "value": 0.5, "seed": 3}
    (tmp_path / "scores.json").write_text(json.dumps([row]))
    text = "metric,value,seed,parameters,task,mixture\ntop1,0.5,3,10,forward,forward+actions\n"
    (tmp_path / "scores.csv").write_text(text)
    one, two = (load([tmp_path / name]).scores[0] for name in ("scores.json", "scores.csv"))
    assert (one.run.regime, one.run.seed, one.run.mixture) == ("together", 3, {"forward": 0.5, "actions": 0.5})
    assert replace(one.run, source="") == replace(two.run, source="")
    assert one.estimate == two.estimate


@pytest.mark.parametrize(
    ("text", "message"), [("[1]", "not a JSON object"), ("[]", "no scores"), ('[{"parameters": "7"}]', "task")]
)
def test_a_wrong_json_table_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load([tmp_path / "scores.json"])


def test_predictions_that_a_table_names_are_scored_with_definitions_and_intervals(tmp_path: Path) -> None:
    write_predictions(tmp_path / "own.jsonl", [True, False, True, True])
    (tmp_path / "models.csv").write_text("parameters,task,regime,predictions\n10,forward,alone,own.jsonl\n")
    scores = {score.metric: score for score in load([tmp_path / "models.csv"]).scores}
    assert scores["top1"].estimate is not None
    assert scores["top1"].estimate.value == 0.75
    assert scores["top1"].estimate.low is not None
    assert scores["top1"].definition
    assert scores["top1"].run.predictions == {"forward": str(tmp_path / "own.jsonl")}
