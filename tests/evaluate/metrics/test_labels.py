"""Labels: read strictly; scores as scikit-learn computes them; foreign predictions are wrong, never left out."""

import time
import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import assume, given
from hypothesis import strategies as st

from bigchem.evaluate.metrics import labels
from bigchem.evaluate.metrics.intervals import macro, percentile_intervals, resampled


def positions_of(count):
    pair = st.tuples(st.integers(0, count - 1), st.integers(-1, count - 1))
    return st.tuples(st.just(count), st.lists(pair, min_size=2, max_size=30).map(lambda pairs: np.array(pairs).T))


ANSWERS = st.integers(2, 4).flatmap(positions_of)
SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=2, max_size=40).map(
    lambda pairs: (np.array(pairs)[:, 0], np.array(pairs)[:, 1] / 2)
)
AREAS = {
    labels.roc_auc: sklearn.metrics.roc_auc_score,
    labels.average_precision: sklearn.metrics.average_precision_score,
}


def by_sklearn(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def test_a_label_is_read_as_it_is_written():
    assert labels.positions(["yes", " no\n", "Yes", "maybe", ""], ["no", "yes"]).tolist() == [1, 0, -1, -1, -1]


def test_several_labels_are_read_by_name():
    names = ["toxic", "a=b", "approved"]
    texts = ["toxic=1; a=b=no; approved=0", "approved = yes;toxic=0", "toxic=1; toxic=0", "toxic=2; what=1; 1", ""]
    expected = [[1, 0, 0], [0, -1, 1], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]]
    assert labels.values(texts, names).tolist() == expected
    assert labels.undeclared(texts, names) == 2


@given(ANSWERS)
def test_accuracy_balanced_accuracy_and_f1_are_scikit_learns(answers):
    count, (wanted, made) = answers
    known = list(range(count))
    assert labels.accuracy(wanted, made).value == pytest.approx(sklearn.metrics.accuracy_score(wanted, made))
    expected = by_sklearn(sklearn.metrics.balanced_accuracy_score, wanted, made)
    assert labels.balanced_accuracy(wanted, made, count).value == pytest.approx(expected)
    if count == 2:
        expected = by_sklearn(sklearn.metrics.f1_score, wanted, made, labels=[1], average="macro", zero_division=np.nan)
    else:
        present = [label for label in known if label in wanted or label in made]
        expected = by_sklearn(sklearn.metrics.f1_score, wanted, made, labels=present, average="macro")
    assert labels.f1(wanted, made, count).value == pytest.approx(expected, nan_ok=True)


@given(ANSWERS)
def test_matthews_correlation_is_scikit_learns_unless_all_references_are_one_label(answers):
    count, (wanted, made) = answers
    found = labels.matthews(wanted, made, count).value
    if len(set(wanted)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(by_sklearn(sklearn.metrics.matthews_corrcoef, wanted, made))


@pytest.mark.parametrize("area", AREAS)
@given(SCORED)
def test_areas_are_scikit_learns(area, scored):
    positive, scores = scored
    if len(set(positive)) == 1:
        assert np.isnan(area(positive, scores).value)
    else:
        assert area(positive, scores).value == pytest.approx(AREAS[area](positive, scores))


@pytest.mark.parametrize("area", AREAS)
@given(SCORED, st.integers(0, 9))
def test_an_area_of_a_resample_is_that_of_the_drawn_examples(area, scored, seed):
    positive, scores = scored
    drawn = np.random.default_rng(seed).integers(len(scores), size=len(scores))
    expected = area(positive[drawn], scores[drawn]).value
    assert resampled([area(positive, scores)], 1, seed)[0][0] == pytest.approx(expected, nan_ok=True)


@given(SCORED)
def test_areas_depend_on_the_order_alone_and_the_roc_is_symmetric(scored):
    positive, scores = scored
    for area in AREAS:
        assert area(positive, np.exp(scores) * 3).value == pytest.approx(area(positive, scores).value, nan_ok=True)
    turned = labels.roc_auc(1 - positive, -scores).value
    assert turned == pytest.approx(labels.roc_auc(positive, scores).value, nan_ok=True)


@given(st.integers(2, 4), st.integers(0, 99))
def test_one_against_the_rest_is_scikit_learns_for_probabilities(count, seed):
    rng = np.random.default_rng(seed)
    wanted, logits = rng.integers(count, size=20), rng.normal(size=(20, count))
    assume(len(set(wanted)) == count)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = (
        sklearn.metrics.roc_auc_score(wanted, shares[:, 1])
        if count == 2
        else sklearn.metrics.roc_auc_score(wanted, shares, multi_class="ovr", average="macro")
    )
    unnormalised = logits - 1000 * rng.random((20, 1))
    assert labels.one_against_rest(wanted, unnormalised, labels.roc_auc).value == pytest.approx(expected)


def test_examples_without_a_reference_do_not_count():
    wanted, made = np.array([1, -1, 0, -1]), np.array([1, 1, 1, -1])
    assert (labels.accuracy(wanted, made).value, labels.accuracy(wanted, made).n) == (0.5, 2)
    assert labels.f1(wanted, made, 2).value == pytest.approx(2 / 3)
    assert labels.roc_auc(wanted, np.array([2.0, 9.0, 1.0, 0.0])).value == 1


def test_a_constant_answer_has_no_correlation_and_half_the_recall():
    wanted = np.array([0, 1] * 10)
    for constant in (0, 1, -1):
        made = np.full(20, constant)
        assert labels.matthews(wanted, made, 2).value == 0
        assert labels.balanced_accuracy(wanted, made, 2).value == (0.5 if constant >= 0 else 0)
    assert labels.roc_auc(wanted, np.zeros(20)).value == 0.5
    assert labels.average_precision(wanted, np.zeros(20)).value == 0.5


def test_a_set_is_right_if_every_known_value_is():
    wanted = np.array([[1, 0], [1, -1], [-1, -1], [0, 0]])
    made = np.array([[1, 0], [1, -1], [1, 1], [0, 1]])
    found = labels.exact_set(wanted, made)
    assert (found.value, found.n) == (2 / 3, 3)


def test_a_macro_mean_is_of_its_defined_parts_in_every_resample():
    rng = np.random.default_rng(0)
    wanted, scores = rng.integers(2, size=(50, 3)), rng.normal(size=(50, 3))
    wanted[:, 2] = 1
    for parts in (
        [labels.roc_auc(*columns) for columns in zip(wanted.T, scores.T, strict=True)],
        [labels.matthews(*columns, 2) for columns in zip(wanted.T, (scores > 0).astype(int).T, strict=True)],
    ):
        together = macro(parts)
        assert together.value == pytest.approx(np.mean([part.value for part in parts[:2]]))
        each = resampled(parts[:2], 20, 3)
        assert resampled([together], 20, 3)[0] == pytest.approx(np.mean(each, axis=0))


def test_intervals_of_the_roc_area_cover_the_truth_nineteen_times_in_twenty():
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        positive = rng.integers(2, size=100)
        low, high = percentile_intervals([labels.roc_auc(positive, rng.normal(positive, 1))], 300, seed)[0]
        covered.append(low <= 0.76025 <= high)  # the normal distribution function at 1 / sqrt(2)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_a_thousand_resamples_of_two_thousand_examples_take_seconds():
    rng = np.random.default_rng(0)
    positive = rng.integers(2, size=2000)
    start = time.process_time()
    percentile_intervals([area(positive, rng.normal(positive, 1)) for area in AREAS], 1000, 0)
    assert time.process_time() - start < 10
