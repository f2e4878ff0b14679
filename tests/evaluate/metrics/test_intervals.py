"""Intervals: they have their coverage, shrink with more data and are reproducible."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bigchem.evaluate.metrics import intervals, text
from bigchem.evaluate.metrics.intervals import Statistic, mean_of, percentile_intervals, share_of, wilson
from bigchem.evaluate.metrics.numbers import spearman


def sample(n, seed=0):
    return np.random.default_rng(seed).normal(2.0, 1.0, n)


def test_mean_leaves_out_what_does_not_count():
    statistic = mean_of(np.array([1.0, np.nan, 3.0]))
    assert (statistic.value, statistic.n) == (2.0, 2)


def test_mean_of_nothing_is_undefined():
    statistic = mean_of(np.array([np.nan, np.nan]))
    assert np.isnan(statistic.value)
    assert np.isnan(percentile_intervals([statistic], 10, 0)).all()


def test_interval_of_a_mean_has_the_width_of_theory():
    values = sample(2000)
    low, high = percentile_intervals([mean_of(values)], 4000, 0)[0]
    half = 1.96 * values.std() / len(values) ** 0.5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_intervals_cover_the_truth_nineteen_times_in_twenty():
    covered = [
        low <= 2.0 <= high
        for seed in range(300)
        for low, high in percentile_intervals([mean_of(sample(100, seed))], 300, seed)
    ]
    assert 0.90 <= np.mean(covered) <= 0.98


@given(st.integers(1, 200), st.floats(0, 1))
def test_wilsons_interval_is_scipys(n, share):
    hits = round(share * n)
    expected = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("share", [0.003, 0.03, 0.5])
def test_the_interval_of_a_share_covers_it_however_rare(share):
    rng = np.random.default_rng(0)
    found = [intervals.intervals([share_of(rng.random(300) < share)], 1, 0)[0] for _ in range(1000)]
    assert np.mean([one.low <= share <= one.high for one in found]) >= 0.92
    assert {one.method for one in found} == {"Wilson"}


def test_the_paired_interval_of_shares_covers_their_difference_however_rare():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        base = rng.random(300) < 0.02
        first, second = base | (rng.random(300) < 0.005), base | (rng.random(300) < 0.01)
        low, high = intervals.paired_share(first, second)
        covered.append(low <= 0.98 * 0.005 <= high)
    assert np.mean(covered) >= 0.93


def test_few_examples_have_no_bootstrap():
    nine, ten = (intervals.intervals([mean_of(sample(n))], 100, 0)[0] for n in (9, 10))
    assert (nine.method, ten.method) == ("too few", "bootstrap")
    assert np.isnan([nine.low, nine.high]).all()


def test_values_that_are_all_alike_have_the_interval_of_a_share_or_none():
    alike = np.full(40, 0.25)
    fraction, number = intervals.intervals([mean_of(alike, kind="fraction"), mean_of(alike)], 100, 0)
    assert (fraction.low, fraction.high) == wilson(0.25, 40)
    assert number.method == ""


def test_a_statistic_over_some_examples_is_that_of_these():
    values = np.array([1.0, np.nan, 3.0, 5.0])
    part = mean_of(values).of(np.array([True, True, False, True]))
    assert (part.value, part.n) == (3.0, 2)


def test_intervals_shrink_with_the_number_of_examples():
    widths = [np.diff(percentile_intervals([mean_of(sample(n))], 500, 0)[0])[0] for n in (50, 500, 5000)]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_resampled_bleu_is_bleu_of_the_resampled_pairs():
    references, predictions = ["CCO", "CCN", "CCCC"], ["CCO", "CCC", "CCNC"]
    counts = text.bleu_counts([[one] for one in references], predictions, 2)
    drawn = np.random.default_rng(5).integers(3, size=3)
    again = text.bleu_counts([[references[i]] for i in drawn], [predictions[i] for i in drawn], 2).sum(axis=0)
    assert intervals.resampled_sums(counts, 1, 5)[0] == pytest.approx(again)


def test_blocks_do_not_change_the_number_of_resamples(monkeypatch):
    rows = np.ones((7, 2))
    monkeypatch.setattr(intervals, "_BLOCK", 20)
    sums = intervals.resampled_sums(rows, 11, 0)
    assert sums.tolist() == [[7.0, 7.0]] * 11


def test_metrics_share_their_resamples_and_repeat_with_the_seed():
    values = sample(200)
    both = [mean_of(values), Statistic(values[:, None], lambda sums: sums[..., 0] / 200, np.ones(200, dtype=bool))]
    first, second = percentile_intervals(both, 100, 1)
    assert first == pytest.approx(second)
    assert percentile_intervals(both, 100, 1) == [first, second]
    assert percentile_intervals(both, 100, 2) != [first, second]


def test_differences_of_metrics_of_order_are_paired():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    first, second = (spearman(truth, truth + noise * rng.normal(size=200)) for noise in (0.5, 0.6))
    difference = intervals.paired_intervals([(first, second)], 300, 0)[0]
    assert difference.low < second.value - first.value < difference.high
    same = intervals.paired_intervals([(first, first)], 300, 0)[0]
    assert (same.low, same.high) == (0, 0)


def test_metrics_of_order_and_of_sums_can_be_resampled_together(monkeypatch):
    values = sample(300)
    order = Statistic(
        values[:, None], lambda rows, times: times @ rows[:, 0] / 300, np.ones(300, dtype=bool), ordered=True
    )
    for block in (1 << 20, 1000):
        monkeypatch.setattr(intervals, "_BLOCK", block)
        found = percentile_intervals([mean_of(values), order, mean_of(values)], 100, 1)
        assert found[0] == pytest.approx(found[1])
        assert found[0] == found[2]
