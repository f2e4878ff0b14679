"""Paired differences of two files of predictions."""

import json
import sys

import numpy as np
import pytest
import scipy.stats

from bigchem.base.errors import UserError
from bigchem.base.progress import tables
from bigchem.evaluate.compare import compare_files, table, to_json
from bigchem.evaluate.prediction_files.tables import ReadAs
from bigchem.evaluate.score import score_file
from bigchem.tasks import shipped


def written(path, predictions, targets=None, k=1):
    targets = targets or ["CCO"] * len(predictions)
    rows = [
        {"source": f"s{i}", "target": target, "predictions": [one] * k}
        for i, (target, one) in enumerate(zip(targets, predictions, strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_metric(differences):
    return {one.metric: one for one in differences}


def test_a_file_does_not_differ_from_itself(tmp_path):
    path = written(tmp_path / "a.jsonl", ["CCO", "CC"] * 20)
    found = compare_files(shipped()["forward"], path, path, similarity=True, bootstrap=50)
    scored = [d for d in found if d.first is not None]
    assert {(d.difference, d.verdict) for d in scored} == {(0.0, "open")}
    assert {(d.low, d.high) for d in scored if d.metric == "morgan"} == {(0.0, 0.0)}
    top = by_metric(found)["top1"]
    assert top.low == -top.high < 0  # forty examples cannot exclude every difference


def test_values_are_those_of_each_file_and_the_better_one_is_told(tmp_path):
    rng = np.random.default_rng(0)
    worse = ["CCO" if hit else "CC" for hit in rng.random(200) < 0.4]
    better = np.where((np.array(worse) == "CCO") | (rng.random(200) < 0.2), "CCO", "CC").tolist()
    a, b = written(tmp_path / "a.jsonl", worse), written(tmp_path / "b.jsonl", better, k=2)
    top = by_metric(compare_files(shipped()["forward"], a, b, bootstrap=400))["top1"]
    values = [next(s.value for s in score_file(shipped()["forward"], path) if s.metric == "top1") for path in (a, b)]
    assert [top.first, top.second] == values
    assert top.difference == pytest.approx(values[1] - values[0])
    assert 0 < top.low < top.difference < top.high
    assert (top.verdict, top.n) == ("better", 200)
    assert by_metric(compare_files(shipped()["forward"], b, a, bootstrap=400))["top1"].verdict == "worse"
    second = by_metric(compare_files(shipped()["forward"], a, b))["top2"]
    assert (second.first, second.verdict, second.note) == (None, "n/a", "the longest list has 1 prediction")


def test_a_metric_where_less_is_better_is_judged_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcd", None)
    a, b = written(tmp_path / "a.jsonl", ["CCCCCCCC"] * 30), written(tmp_path / "b.jsonl", ["CCO"] * 30)
    distance = by_metric(compare_files(shipped()["generation"], a, b, bootstrap=50))["levenshtein"]
    assert distance.difference < 0
    assert distance.verdict == "better"


def test_pairs_make_the_interval_as_narrow_as_theory_says(tmp_path):
    """Two systems that fail on the same hard examples differ less by chance than two that fail independently."""
    rng = np.random.default_rng(1)
    hard = rng.random(1500) < 0.5
    predictions = np.where(hard, "CC", "CCO")
    changed = predictions.copy()
    changed[np.flatnonzero(hard)[:40]] = "CCO"
    a, b = written(tmp_path / "a.jsonl", predictions.tolist()), written(tmp_path / "b.jsonl", changed.tolist())
    top = by_metric(compare_files(shipped()["forward"], a, b, bootstrap=2000))["top1"]
    share = 40 / 1500
    half = 1.96 * (share * (1 - share) / 1500) ** 0.5
    assert (top.low, top.high) == pytest.approx((share - half, share + half), abs=0.15 * half)


@pytest.mark.parametrize(("won", "verdict"), [(5, "open"), (6, "better")])
def test_a_few_examples_that_differ_are_judged_as_mcnemars_exact_test_judges_them(tmp_path, won, verdict):
    """p = .0625 for five discordant examples, all on one side, .031 for six; a bootstrap calls four significant."""
    a = written(tmp_path / "a.jsonl", ["CC"] * 300)
    b = written(tmp_path / "b.jsonl", ["CCO"] * won + ["CC"] * (300 - won))
    top = by_metric(compare_files(shipped()["forward"], a, b, bootstrap=200))["top1"]
    assert top.verdict == verdict
    assert (scipy.stats.binomtest(won, won).pvalue < 0.05) == (verdict == "better")


def test_too_few_examples_have_no_verdict(tmp_path):
    a, b = written(tmp_path / "a.jsonl", ["CCN"]), written(tmp_path / "b.jsonl", ["CCC"])
    found = by_metric(compare_files(shipped()["forward"], a, b, similarity=True, bootstrap=50))["morgan"]
    assert (found.low, found.verdict) == (None, "n/a")
    assert found.note == "too few for an interval: under 10 examples count"


@pytest.mark.thorough
def test_the_interval_of_a_difference_covers_it_nineteen_times_in_twenty(tmp_path):
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        first, second = (np.where(rng.random(150) < share, "CCO", "CC").tolist() for share in (0.5, 0.65))
        a, b = written(tmp_path / "a.jsonl", first), written(tmp_path / "b.jsonl", second)
        top = by_metric(compare_files(shipped()["actions"], a, b, bootstrap=300, seed=seed))["exact"]
        covered.append(top.low <= 0.15 <= top.high)
    assert 0.85 <= np.mean(covered) <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictions": ["CC"]}, r"b.jsonl: 1 example, .*a.jsonl has 2"),
        ({"predictions": ["CC"] * 2, "targets": ["CCO", "CN"]}, "missing here: 1, .* number 2, with source 's1'"),
        ({"predictions": ["CC"] * 3}, r"b.jsonl: 3 examples, .*a.jsonl has 2; all of which are here"),
    ],
)
def test_other_examples_are_refused(tmp_path, changes, message):
    a, b = written(tmp_path / "a.jsonl", ["CC"] * 2), written(tmp_path / "b.jsonl", **changes)
    with pytest.raises(UserError, match=message):
        compare_files(shipped()["forward"], a, b)


def test_rows_in_another_order_are_joined_by_source_and_target_or_by_a_key(tmp_path, capsys):
    rows = [
        {"id": number, "source": f"s{number // 2}", "target": target, "prediction": made}
        for number, (target, made) in enumerate([("CC", "CC"), ("CO", "C"), ("CN", "CN"), ("CCO", "C")])
    ]
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text("".join(json.dumps(row) + "\n" for row in rows))
    second.write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]))
    same = {d.metric: d.difference for d in compare_files(shipped()["forward"], first, second, bootstrap=0)}
    assert same["top1"] == 0
    assert "read in the order of" in capsys.readouterr().err
    for row in rows:
        row["source"] += " spelled otherwise"
    second.write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]))
    with pytest.raises(UserError, match=r"missing here: 4.*\nnext: .*--column key=NAME"):
        compare_files(shipped()["forward"], first, second)
    assert compare_files(shipped()["forward"], first, second, how=ReadAs({"key": "id"}), bootstrap=0)[0].difference == 0
    rows[0]["target"] = "N"
    second.write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]))
    with pytest.raises(UserError, match=r"example 1 \(key '0'\) differs: its target is 'N'"):
        compare_files(shipped()["forward"], first, second, how=ReadAs({"key": "id"}))


def test_the_loss_is_compared_example_by_example_where_both_files_have_it(tmp_path):
    """Both models find the same examples hard; one is .1 nats a token better."""
    rng = np.random.default_rng(0)
    tokens, difficulty = rng.integers(5, 30, 300), rng.gamma(2, 1, 300)
    rows = [{"source": f"s{n}", "target": "CC", "prediction": "CC"} for n in range(300)]
    files = []
    for name, better in (("a.jsonl", 0.0), ("b.jsonl", 0.1)):
        nats = tokens * (difficulty - better + rng.normal(0, 0.02, 300))
        both = zip(nats.tolist(), tokens.tolist(), strict=True)
        lines = [json.dumps({**row, "loss_and_tokens": list(pair)}) for row, pair in zip(rows, both, strict=True)]
        files.append(tmp_path / name)
        files[-1].write_text("\n".join(lines))
    loss = compare_files(shipped()["forward"], *files)[0]
    assert (loss.metric, loss.verdict) == ("loss", "better")
    assert loss.low < -0.1 < loss.high < loss.low + 0.01
    alone = score_file(shipped()["forward"], files[0], bootstrap=1000)[0]
    assert alone.high - alone.low > 0.2
    old = tmp_path / "old.jsonl"
    old.write_text("\n".join(map(json.dumps, rows)))
    assert compare_files(shipped()["forward"], old, files[1])[0].note.startswith("needs the column loss_and_tokens")
    assert "loss" not in by_metric(compare_files(shipped()["forward"], old, old))


def test_what_is_not_available_has_its_remedy_and_no_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr("bigchem.evaluate.metrics.text.find_scibert", lambda: None)
    a = written(tmp_path / "a.jsonl", ["an acid"] * 3, ["an acid"] * 3)
    found = compare_files(shipped()["captioning"], a, a, bootstrap=0)
    bleu = by_metric(found)["bleu4"]
    assert (bleu.first, bleu.difference, bleu.verdict) == (None, None, "n/a")
    assert "BIGCHEM_SCIBERT" in bleu.note
    listed = json.loads(json.dumps(to_json(found)))
    assert listed[0].keys() == {*vars(bleu), "excludes_zero"}
    console = tables()
    with console.capture() as shown:
        console.print(table(found, "a.jsonl", "b.jsonl"))
    assert "a.jsonl" in shown.get()
