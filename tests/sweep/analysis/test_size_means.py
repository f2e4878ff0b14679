from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from bigchem.sweep.analysis.size_means import SizeMeans, Variance, of_seeds, size_means

SIZES = np.array([2e5, 1e6, 5e6, 2.5e7])
SLOPE = 0.02


def seeded(values: NDArray[np.float64], examples: NDArray[np.float64] | None = None) -> SizeMeans:
    """From values [k, seeds]."""
    sizes = SIZES[: len(values)]
    means = dict(zip(sizes.astype(int).tolist(), values.mean(1).tolist(), strict=True))
    return size_means(means, {size: of_seeds(list(row)) for size, row in zip(means, values, strict=True)}, examples)


def slope_of(values: NDArray[np.float64], examples: NDArray[np.float64] | None = None) -> tuple[float, float]:
    """The interval."""
    found = seeded(values, examples).slope()
    assert found is not None
    interval = found.estimate
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def test_a_planted_line_is_recovered_with_a_slope_per_decade() -> None:
    line = seeded((0.1 + SLOPE * np.log10(SIZES / 2e5))[:, None] + np.array([-0.01, 0.01])).line()
    assert line is not None
    assert line.slope.value == pytest.approx(SLOPE)
    assert line(2e6) == pytest.approx(0.1 + SLOPE)
    low, high = line.band([2e5, 2.2e6, 2.5e7])
    assert (high - low)[1] == min(high - low)  # narrowest in the middle
    assert (low < line([2e5, 2.2e6, 2.5e7])).all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [(1, 1, 1, 1), (4, 2.5, 1.6, 1), (1, 1, 1, 5)])
def test_slopes_cover_the_truth_where_noise_changes_with_size(seeds: int, spread: tuple[float, ...]) -> None:
    """By Welch and Satterthwaite; a variance pooled over sizes covers 81 to 91 % of the unequal ones."""
    random, covered, draws = np.random.default_rng(0), 0, 800
    for _ in range(draws):
        noise = random.normal(size=(4, seeds)) * np.array(spread)[:, None]
        low, high = slope_of(SLOPE * np.log10(SIZES)[:, None] + noise)
        covered += low <= SLOPE <= high
    assert 0.92 <= covered / draws <= 0.985


def test_slopes_cover_the_truth_where_seeds_and_sizes_share_their_examples() -> None:
    """Examples noise that all sizes share, a part of each size's own, and seeds."""
    random, covered, draws = np.random.default_rng(1), 0, 800
    examples = np.full((4, 4), 4.0) + np.eye(4) * 0.5
    for _ in range(draws):
        judged = random.multivariate_normal(np.zeros(4), examples)[:, None]
        low, high = slope_of(SLOPE * np.log10(SIZES)[:, None] + judged + random.normal(size=(4, 3)), examples)
        covered += low <= SLOPE <= high
    assert 0.93 <= covered / draws <= 0.985


def test_one_seed_everywhere_is_judged_by_the_scatter_about_the_line() -> None:
    random, covered, draws = np.random.default_rng(0), 0, 600
    for _ in range(draws):
        low, high = slope_of((SLOPE * np.log10(SIZES) + random.normal(0, 0.01, 4))[:, None])
        covered += low <= SLOPE <= high
    assert 0.92 <= covered / draws <= 0.98


def test_points_that_lie_on_a_line_by_luck_keep_the_width_of_their_examples() -> None:
    low, high = slope_of(np.array([[0.0], [0.1], [0.2]]), np.eye(3) * 0.03**2)
    assert high - low > 0.05


def test_more_seeds_on_the_same_examples_do_not_shrink_the_examples_noise() -> None:
    once, examples = np.array([[0.0], [0.1], [0.2]]), np.eye(3) * 0.03**2
    assert slope_of(once, examples) == pytest.approx(slope_of(np.repeat(once, 5, axis=1), examples))


def test_two_sizes_have_a_slope_but_no_line_and_of_one_seed_no_test() -> None:
    two = seeded(np.array([[0.0, 0.1], [0.2, 0.3]]))
    slope = two.slope()
    assert slope is not None
    assert slope.value == pytest.approx(0.2 / math.log10(5))
    assert two.line() is None
    alone = seeded(np.array([[0.0], [0.2]]), np.eye(2) * 1e-6).slope()
    assert alone is not None
    assert alone.p is None


def test_a_size_of_one_seed_borrows_the_others_variance() -> None:
    means = {10: 0.0, 100: 0.0, 1000: 0.0}
    training = {10: (Variance(0.04, 4.0),), 100: (Variance(0.04, 4.0),), 1000: ()}
    found = size_means(means, training).contrast([0, 0, 1])
    assert found.error**2 == pytest.approx(5 * 0.04)
    assert found.dof == pytest.approx(8)


def test_lack_of_fit_is_found_at_its_level_where_there_is_none_and_where_there_is() -> None:
    random = np.random.default_rng(0)
    line = [seeded(np.log10(SIZES)[:, None] + random.normal(size=(4, 4))).lack_of_fit() for _ in range(400)]
    bent = [
        seeded(np.array([[0.0], [5.0], [5.0], [0.0]]) + random.normal(size=(4, 4))).lack_of_fit() for _ in range(50)
    ]
    assert np.mean([p is not None and p < 0.05 for p in line]) < 0.09
    assert np.mean([p is not None and p < 0.05 for p in bent]) > 0.9
    assert seeded(np.log10(SIZES)[:, None]).lack_of_fit() is None


def test_a_detectable_slope_is_found_in_four_of_five_cases() -> None:
    random = np.random.default_rng(0)
    noise = SizeMeans(SIZES, np.zeros(4), ((Variance(1 / 3, 2),),) * 4)
    planned = noise.slope()
    assert planned is not None
    slope, found = planned.detectable(), 0
    for _ in range(600):
        low, high = slope_of(slope * np.log10(SIZES)[:, None] + random.normal(size=(4, 3)))
        found += low > 0 or high < 0
    assert 0.68 <= found / 600 <= 0.9
