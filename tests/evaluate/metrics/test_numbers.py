"""Numbers: what is one, and errors and correlations as scipy and scikit-learn compute them."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import assume, given
from hypothesis import strategies as st

from bigchem.evaluate.metrics import numbers
from bigchem.evaluate.metrics.intervals import percentile_intervals, resampled

VALUES = st.integers(-30, 30).map(lambda number: number / 4)
SIDES = st.lists(st.tuples(VALUES, VALUES), min_size=3, max_size=40).map(lambda pairs: np.array(pairs).T)
STATISTICS = {
    numbers.mean_absolute_error: sklearn.metrics.mean_absolute_error,
    numbers.root_mean_squared_error: sklearn.metrics.root_mean_squared_error,
    numbers.r2: sklearn.metrics.r2_score,
    numbers.pearson: lambda x, y: scipy.stats.pearsonr(x, y).statistic,
    numbers.spearman: lambda x, y: scipy.stats.spearmanr(x, y).statistic,
}


@pytest.mark.parametrize("text", ["1", "-1", "+1.", ".5", "-0.50", "1e3", "1.5E-3", " 2 \n", "\N{MINUS SIGN}3"])
def test_a_decimal_number_is_read(text):
    assert numbers.read([text])[0] == float(text.replace("\N{MINUS SIGN}", "-"))


@pytest.mark.parametrize(
    "text", ["", ".", "-", "1,5", "1 2", "1.2.3", "-2.1 log mol/L", "nan", "inf", "1e999", "1e101", "1_000", "0x1", "٣"]
)
def test_anything_else_is_no_number(text):
    assert np.isnan(numbers.read([text])[0])


@given(st.floats(-1e100, 1e100))
def test_every_number_that_python_prints_is_read_back(number):
    assert numbers.read([repr(number)])[0] == number


@pytest.mark.parametrize("statistic", STATISTICS)
@given(SIDES)
def test_values_are_those_of_scipy_and_scikit_learn(statistic, sides):
    assume(all(np.ptp(side) > 0 for side in sides))
    assert statistic(*sides).value == pytest.approx(STATISTICS[statistic](*sides), abs=1e-9)


@pytest.mark.parametrize("statistic", STATISTICS)
@given(SIDES, st.integers(0, 9))
def test_a_resample_has_the_value_of_the_drawn_examples(statistic, sides, seed):
    n = sides.shape[1]
    drawn = np.random.default_rng(seed).integers(n, size=n)
    again = sides[:, drawn]
    expected = statistic(*again).value
    assert resampled([statistic(*sides)], 1, seed)[0][0] == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("statistic", STATISTICS)
@given(SIDES, st.permutations(range(5)))
def test_pairs_with_a_missing_number_do_not_count_wherever_they_stand(statistic, sides, places):
    extra = np.array([[np.nan, 1.0, np.nan], [1.0, np.nan, np.nan]])
    longer = np.concatenate([extra[:, :1], sides, extra[:, 1:]], axis=1)
    without, found = statistic(*sides), statistic(*longer)
    assert found.n == without.n
    assert found.value == pytest.approx(without.value, nan_ok=True, abs=1e-9)


@pytest.mark.parametrize("statistic", [numbers.pearson, numbers.spearman])
@given(SIDES, st.sampled_from([0.25, 3, 1024]), st.integers(-(10**6), 10**6))
def test_correlations_do_not_change_with_unit_and_origin(statistic, sides, scale, origin):
    wanted, made = sides
    expected = statistic(wanted, made).value
    assert statistic(wanted, scale * made + origin).value == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert statistic(wanted, -scale * made).value == pytest.approx(-expected, abs=1e-9, nan_ok=True)
    assert statistic(made, wanted).value == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_far_from_zero_nothing_is_lost():
    wanted = np.array([1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3])
    made = wanted + np.array([1, -1, -1, 1])
    assert numbers.r2(wanted, made).value == pytest.approx(1 - 4 / 5)
    assert numbers.pearson(wanted, wanted * 2).value == pytest.approx(1)


def test_by_hand():
    wanted, made = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 6.0])
    assert numbers.mean_absolute_error(wanted, made).value == 1
    assert numbers.root_mean_squared_error(wanted, made).value == pytest.approx(3**0.5)
    assert numbers.r2(wanted, made).value == 1 - 9 / 2
    assert numbers.spearman(wanted, made).value == pytest.approx(1)


@pytest.mark.parametrize("constant", [0.1, -3.7, 1e9 / 3])
def test_of_constants_a_correlation_is_undefined_and_r2_only_if_the_references_are(constant):
    same, other = np.full(30, constant), np.linspace(-1, 1, 30) / 3
    assert np.isnan([numbers.pearson(*sides).value for sides in ((same, other), (other, same), (same, same))]).all()
    assert np.isnan([numbers.spearman(*sides).value for sides in ((same, other), (other, same), (same, same))]).all()
    assert np.isnan(numbers.r2(same, other).value)
    assert numbers.r2(other, same).value < 0
    assert numbers.r2(other, np.full(30, other.mean())).value == pytest.approx(0)


def test_no_pair_is_undefined_everywhere():
    nothing = np.full(3, np.nan)
    assert np.isnan([statistic(nothing, nothing).value for statistic in STATISTICS]).all()


@pytest.mark.parametrize("statistic", [numbers.pearson, numbers.spearman])
def test_intervals_of_correlations_cover_the_truth_nineteen_times_in_twenty(statistic):
    rho = 0.6
    truth = {numbers.pearson: rho, numbers.spearman: 6 / np.pi * np.arcsin(rho / 2)}[statistic]
    covered = []
    for seed in range(200):
        sides = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, rho], [rho, 1]], 100).T
        low, high = percentile_intervals([statistic(*sides)], 300, seed)[0]
        covered.append(low <= truth <= high)
    assert 0.9 <= np.mean(covered) <= 0.99
