"""The metrics of each family: by hand, nothing is dropped silently, nothing is undefined without a word."""

import csv
import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_files import REAL_DATA

from bigchem.base.installed.packages import install_extra
from bigchem.evaluate.metrics import names
from bigchem.evaluate.protocol.definitions import DEFINITIONS, FAMILIES, HIGHER_IS_BETTER, family_metrics
from bigchem.evaluate.protocol.pairs import Pairs
from bigchem.evaluate.protocol.score_task import score_pairs

NEW = ("text", "number", "label", "labels", "name", "formula", "reagents")


@pytest.fixture
def without_java(monkeypatch):
    monkeypatch.setattr("bigchem.evaluate.metrics.names._jar", lambda: None)


def score(family, references, predictions, *, bootstrap=0, **options):
    pairs = Pairs([""] * len(references), references, [[one] for one in predictions], **options)
    scores = score_pairs("mine", family_metrics(family), pairs, bootstrap=bootstrap)
    assert [one.metric for one in scores] == [metric.name for metric in FAMILIES[family]]
    assert all(one.note for one in scores if one.value is None)
    return {one.metric: one for one in scores}


def values(scores):
    return {name: one.value for name, one in scores.items()}


def test_a_metric_has_one_direction_in_all_families_and_a_definition_one_meaning():
    everything = [metric for metrics in FAMILIES.values() for metric in metrics]
    same = {(metric.name, metric.higher_is_better, metric.lowest, metric.highest) for metric in everything}
    assert len(same) == len(HIGHER_IS_BETTER)
    assert len({(metric.definition, metric.meaning) for metric in everything}) == len(DEFINITIONS)
    for metrics in FAMILIES.values():
        assert len({metric.name for metric in metrics}) == len(metrics)


def test_only_a_task_with_an_inverse_has_round_trips():
    with_trips, without = (family_metrics("reaction", inverse=inverse) for inverse in (True, False))
    assert {metric.name for metric in set(with_trips) - set(without)} == {
        f"round_trip{name}" for name in ("", "_nostereo", "_all", "_coverage", "_diversity")
    }


def test_numbers_by_hand_with_what_is_none_counted():
    scores = score("number", ["1.0", "2.0", "3.0", "4.0", "?"], ["1.5", "2.0", "2.0", "low", "7"])
    assert (scores["valid_numbers"].value, scores["valid_numbers"].n) == (0.8, 5)
    assert (scores["mae"].value, scores["rmse"].value) == (0.5, pytest.approx((1.25 / 3) ** 0.5))
    assert scores["r2"].value == pytest.approx(1 - 1.25 / 2)
    note = "1 of 5 predictions are not numbers: left out; 1 of 5 references are not numbers: left out"
    assert {(scores[name].n, scores[name].note) for name in ("mae", "rmse", "r2", "pearson", "spearman")} == {(3, note)}


def test_a_constant_prediction_has_errors_and_no_correlation():
    scores = score("number", ["1", "2", "3"], ["2", "2", "2"], bootstrap=50)
    assert (scores["r2"].value, scores["pearson"].value, scores["spearman"].value) == (0, None, None)
    assert scores["pearson"].note == "undefined: fewer than two different numbers among references or predictions"
    assert score("number", ["1", "1"], ["2", "3"])["r2"].note.startswith("undefined: fewer than two different numbers")


def test_predictions_without_a_single_number_say_so():
    scores = score("number", ["1", "2"], ["high", "low"])
    assert values(scores) == {name: 0 if name == "valid_numbers" else None for name in scores}
    assert scores["rmse"].note == "no pair of numbers; 2 of 2 predictions are not numbers: left out"


def test_a_label_by_hand_a_foreign_answer_is_wrong():
    references, predictions = ["no", "no", "yes", "yes", "?"], ["no", "yes", "yes", "Yes!", "no"]
    scores = score("label", references, predictions, labels=("no", "yes"))
    assert (scores["valid_labels"].value, scores["valid_labels"].note) == (0.8, "labels: no, yes")
    assert (scores["accuracy"].value, scores["accuracy"].n) == (0.5, 4)
    assert (scores["balanced_accuracy"].value, scores["f1"].value) == (0.5, 2 / 4)
    assert scores["mcc"].note == (
        "1 of 5 predictions are not a label: counted as wrong; 1 of 5 references are not a label: left out"
    )
    assert scores["roc_auc"].note.startswith("needs the labels' log-probabilities: bigchem evaluate writes them")


def test_areas_come_from_the_log_probabilities_alone():
    table = np.log([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    scores = score("label", ["no", "no", "yes", "yes"], ["?"] * 4, labels=("no", "yes"), label_log_probabilities=table)
    assert (scores["accuracy"].value, scores["roc_auc"].value) == (0, 0.75)
    assert scores["pr_auc"].value == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_of_more_labels_an_absent_one_is_left_out_and_named():
    table = np.log([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.1, 0.7]])
    options = {"labels": ("red", "blue", "green"), "label_log_probabilities": table}
    found = score("label", ["red", "blue", "red", "blue"], ["red", "green", "pink", "blue"], **options)
    assert (found["roc_auc"].value, found["roc_auc"].note) == ((1 + 0.5) / 2, "no reference is green: left out")
    assert found["f1"].value == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert found["balanced_accuracy"].value == 0.5


def test_without_a_record_labels_are_not_guessed():
    assert {one.note for one in score("label", ["a", "b"], ["a", "a"]).values()} == {
        "needs the task's labels: `labels` in its record"
    }


def test_references_of_one_label_leave_correlation_and_areas_undefined():
    scores = score("label", ["no"] * 3, ["no"] * 3, labels=("no", "yes"), label_log_probabilities=np.zeros((3, 2)))
    undefined = {name for name, one in scores.items() if one.value is None}
    assert undefined == {"f1", "mcc", "roc_auc", "pr_auc"}
    assert scores["f1"].note == "undefined: no reference and no prediction is the last label"


def test_several_labels_by_hand_unknown_references_are_left_out():
    references = ["toxic=1; approved=no", "toxic=0", "toxic=0; approved=yes"]
    predictions = ["approved=0; toxic=yes", "toxic=1; approved=1", "toxic=0; odd=1"]
    log_odds = np.array([[2.0, -1.0], [-1.0, 9.0], [1.0, 3.0]])
    scores = score("labels", references, predictions, labels=("toxic", "approved"), label_log_probabilities=log_odds)
    assert scores["valid_labels"].value == 4 / 5
    assert scores["accuracy"].value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["balanced_accuracy"].value == pytest.approx(((1 + 1 / 2) / 2 + 1 / 2) / 2)
    assert scores["f1"].value == pytest.approx((2 / 3 + 0) / 2)
    assert (scores["exact"].value, scores["exact"].n) == (1 / 3, 3)
    assert (scores["roc_auc"].value, scores["pr_auc"].value) == (1, 1)
    assert scores["accuracy"].note == (
        "1 of 6 predicted values are missing or unreadable: wrong; 1 of 6 reference values are unknown: left out; "
        "1 values in predictions belong to no label of the task"
    )


def test_a_label_without_both_values_is_left_out_of_the_macro_mean_and_named():
    references, predictions = ["a=1; b=1", "a=0; b=1"], ["a=1; b=1", "a=0; b=0"]
    scores = score("labels", references, predictions, labels=("a", "b"))
    assert (scores["mcc"].value, scores["mcc"].note) == (1, "undefined for b: left out")
    only = score("labels", references, predictions, labels=("b",))
    assert only["mcc"].note.startswith("undefined: no label has both values")


def test_formulas_by_hand():
    scores = score("formula", ["C2H6O", "CH4", "C2H6O.H2O"], ["OC2H6", "CH3Cl", "water"])
    assert values(scores) == {
        "exact": 1 / 3,
        "valid_formulas": 2 / 3,
        "elements": (1 + 1 / 3) / 2,
        "atoms": pytest.approx((1 + 2 * 4 / 10) / 2),
    }
    assert scores["atoms"].note == "1 of 3 references are not formulas: left out"


def test_reagents_by_hand():
    scores = score("reagents", ["CCO.[Na+].[Cl-]", "CN", "C("], ["[Cl-].[Na+].OCC", "NC.O.X(", "C("])
    assert values(scores) == {"exact": 1 / 3, "validity": 1 / 3, "precision": 4 / 7, "recall": 4 / 5, "f1": 8 / 12}
    assert scores["exact"].note == "1 reference does not parse and counts as a miss"


def test_text_by_hand():
    scores = score("text", ["a red solid", "oil"], [" a red solid", "blue oil"])
    assert scores["exact"].value == 0.5
    assert scores["rouge1"].value == pytest.approx((1 + 2 / 3) / 2)
    assert scores["levenshtein_similarity"].value == pytest.approx((1 + 3 / 8) / 2)


def test_names_without_opsin_are_compared_as_texts_and_the_rest_has_its_remedy(without_java):
    scores = score("name", ["ethanol", "propane"], ["ethanol", "propene"])
    assert (scores["exact"].value, scores["levenshtein"].value) == (0.5, 0.5)
    assert scores["levenshtein_similarity"].value == pytest.approx((1 + 6 / 7) / 2)
    remedy = f"needs Java and the optional package py2opsin: {install_extra('names')}"
    assert scores["same_molecule"].note == scores["valid_names"].note == remedy


needs_opsin = pytest.mark.skipif(
    shutil.which("java") is None or names._jar() is None, reason="needs Java and the package py2opsin"
)


@needs_opsin
def test_names_of_one_molecule_are_equal():
    references = ["ethanol", "(2R)-butan-2-ol", "water of life", "α-D-glucopyranose", "propane"]
    predictions = ["ethan-1-ol", "butan-2-ol", "ethanol", "alpha-D-\nglucopyranose", "propain"]
    scores = score("name", references, predictions)
    assert (scores["same_molecule"].value, scores["same_molecule"].n) == (2 / 4, 4)
    assert scores["same_molecule"].note == "1 of 5 references that OPSIN cannot read: left out"
    assert scores["valid_names"].value == 4 / 5


@needs_opsin
def test_an_opsin_that_fails_leaves_the_other_metrics(monkeypatch, tmp_path):
    broken = tmp_path / "opsin-cli-0.jar"
    broken.write_bytes(b"")
    monkeypatch.setattr("bigchem.evaluate.metrics.names._jar", lambda: broken)
    scores = score("name", ["ethanol"], ["ethanol"])
    assert scores["exact"].value == 1
    assert scores["same_molecule"].note.startswith("OPSIN answered 0 of 1 names:")


WRITTEN = {
    "text": ("a red solid", "", "an oil"),
    "number": ("1.5", "-2", "3e2", "0", "none", ""),
    "label": ("no", "yes", "maybe", ""),
    "labels": ("a=1; b=0", "a=0", "b=yes; a=no", "a=2", "nothing", ""),
    "name": ("ethanol", "propane", ""),
    "formula": ("CH4", "C2H6O", "H2O-", "oil", ""),
    "reagents": ("CCO.N", "N", "[Na+].[Cl-]", "C(", ""),
}
BEST = {
    **{family: texts[:2] for family, texts in WRITTEN.items()},
    "text": ("a small red solid", "a pale oil here"),
    "labels": ("a=1; b=0", "a=0; b=1"),
}
OPTIONS = {"label": {"labels": ("no", "yes")}, "labels": {"labels": ("a", "b")}}


@pytest.mark.parametrize("family", NEW)
@pytest.mark.usefixtures("without_java")
@given(data=st.data())
def test_every_score_is_finite_in_its_interval_or_na_with_a_word(family, data):
    texts = st.sampled_from(WRITTEN[family])
    pairs = data.draw(st.lists(st.tuples(texts, texts), min_size=1, max_size=30))
    options = dict(OPTIONS.get(family, {}))
    if options:
        drawn = np.random.default_rng(len(pairs)).normal(size=(len(pairs), 2))
        options["label_log_probabilities"] = data.draw(st.sampled_from([None, drawn, np.zeros_like(drawn)]))
    for one in score(family, *zip(*pairs, strict=True), bootstrap=40, **options).values():
        assert one.value is None or math.isfinite(one.value)
        if one.low is not None:
            assert one.low <= one.high
            assert math.isfinite(one.low + one.high)
            assert one.n > 0


@pytest.mark.parametrize("family", NEW)
@pytest.mark.usefixtures("without_java")
def test_right_predictions_are_best_and_have_intervals(family):
    references = list(BEST[family]) * 10
    options = dict(OPTIONS.get(family, {}))
    if options:
        options["label_log_probabilities"] = np.array([[1.0, -1.0], [-1.0, 1.0]] * 10)
    for name, one in score(family, references, references, bootstrap=100, **options).items():
        if one.value is None:
            assert "py2opsin" in one.note
        elif HIGHER_IS_BETTER[name]:
            assert one.value == pytest.approx(1)
        else:
            assert one.value == 0


@pytest.mark.parametrize("family", NEW)
@pytest.mark.usefixtures("without_java")
def test_every_number_has_an_interval_around_it(family):
    right, wrong = BEST[family]
    references, predictions = [right, wrong] * 20, [right, wrong, right, wrong, wrong] * 8
    options = dict(OPTIONS.get(family, {}))
    if options:
        options["label_log_probabilities"] = np.random.default_rng(0).normal(size=(40, 2))
    for one in score(family, references, predictions, bootstrap=100, **options).values():
        if one.value is not None:
            assert one.low <= one.value <= one.high
            assert one.low < one.high


REAL_TASKS = REAL_DATA.parent / "tasks"


@pytest.mark.data
@pytest.mark.skipif(not REAL_TASKS.is_dir(), reason="needs the public files of further tasks")
def test_real_numbers_and_formulas_are_read():
    rows = list(csv.DictReader((REAL_TASKS / "moleculenet" / "esol.csv").open(encoding="utf-8")))
    logs = [row["measured_log_solubility"] for row in rows]
    scores = score("number", logs, [f"{float(text):.2f}" for text in logs], bootstrap=200)
    assert (scores["valid_numbers"].value, scores["spearman"].n) == (1, len(rows))
    assert scores["spearman"].value > 0.999
    assert scores["rmse"].value < 0.003
    formulas = [row["formula"] for row in csv.DictReader((REAL_TASKS / "names" / "names.csv").open(encoding="utf-8"))]
    assert score("formula", formulas, formulas)["valid_formulas"].value == 1
