from __future__ import annotations

import numpy as np
import pytest

from bigchem.sweep.analysis.fit import Estimate, difference, line, over_seeds, student_t

SIZES = [2e5, 1e6, 5e6, 2.5e7, 1e8]


def test_students_t_agrees_with_published_tables() -> None:
    for dof, published in ((1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (20, 2.086), (120, 1.980)):
        assert student_t(dof) == pytest.approx(published, abs=1e-3)


def test_a_planted_line_is_recovered_with_a_slope_per_decade() -> None:
    found = line(SIZES, [Estimate(0.1 + 0.03 * np.log10(n / 2e5)) for n in SIZES])
    assert found is not None
    assert found.slope.value == pytest.approx(0.03)
    assert found.slope.low == pytest.approx(0.03)
    assert found(2e6) == pytest.approx(0.13)


def test_a_slopes_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        found = line(SIZES[:4], [Estimate(0.02 * np.log10(n) + random.normal(0, 0.01)) for n in SIZES[:4]])
        assert found is not None
        assert found.slope.low is not None
        assert found.slope.high is not None
        covered += found.slope.low <= 0.02 <= found.slope.high
    assert 0.92 <= covered / 600 <= 0.98


def test_a_slopes_interval_covers_the_truth_where_seeds_share_their_examples() -> None:
    random = np.random.default_rng(0)
    sizes, draws, margin = np.repeat([1e6, 1e7, 1e8], 3), 2000, 1.96
    covered = 0
    for _ in range(draws):
        examples, training = np.repeat(random.normal(0, 1.0, 3), 3), random.normal(0, 1.7, 9)
        found = line(sizes, [Estimate(v, v - margin, v + margin) for v in examples + training])
        assert found is not None
        covered += found.slope.sign == 0
    assert 0.935 <= covered / draws <= 0.98


def test_points_that_lie_on_a_line_by_luck_keep_the_width_of_their_margins() -> None:
    found = line(SIZES[:3], [Estimate(0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.05) for i in range(3)])
    assert found is not None
    assert found.slope.low is not None
    assert found.slope.value - found.slope.low > 0.03


def test_more_seeds_on_the_same_examples_do_not_shrink_the_examples_noise() -> None:
    once = [Estimate(0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.05) for i in range(3)]
    one, many = line(SIZES[:3], once), line(SIZES[:3] * 5, once * 5)
    assert one is not None
    assert many is not None
    assert many.slope.low == pytest.approx(one.slope.low)


@pytest.mark.parametrize("sizes", [[], [1e6], [1e6, 1e6, 1e6], [1e6, 5e6, 5e6]])
def test_fewer_than_three_sizes_give_no_fit(sizes: list[float]) -> None:
    assert line(sizes, [Estimate(0.5)] * len(sizes)) is None


def test_one_seed_keeps_its_own_interval_and_seeds_widen_it() -> None:
    one = over_seeds([Estimate(0.5, 0.46, 0.55)])
    assert (one.low, one.high) == pytest.approx((0.46, 0.55))
    three = over_seeds([Estimate(v, v - 0.04, v + 0.05) for v in (0.4, 0.5, 0.6)])
    assert three.value == pytest.approx(0.5)
    assert three.low is not None
    assert three.low < 0.5 - 4.303 * 0.1 / np.sqrt(3)


def test_without_intervals_or_seeds_there_is_no_interval() -> None:
    assert over_seeds([Estimate(0.5)]).low is None
    assert difference(Estimate(0.5, 0.4, 0.6), Estimate(0.2)).high is None
    assert Estimate(0.5).sign == 0


def test_a_difference_takes_margins_from_the_sides_that_oppose() -> None:
    found = difference(Estimate(1.0, 0.7, 1.0), Estimate(0.5, 0.5, 0.9))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.0, 0.5))
