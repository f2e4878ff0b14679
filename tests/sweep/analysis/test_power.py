from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.sweep.analysis.power import detectable_slope, seeds_to_find
from bigchem.sweep.analysis.size_means import SizeMeans, Variance

SIZES = np.array([2e5, 1e6, 4e6])


def pilot(seed_variance: float, examples: float = 0.0, common: float = 0.0) -> SizeMeans:
    """Of two seeds. examples: variance of each size's mean; common: their covariance."""
    noise = np.full((3, 3), common) + np.eye(3) * (examples - common)
    return SizeMeans(SIZES, np.zeros(3), ((Variance(seed_variance / 2, 1),),) * 3, noise)


@given(st.integers(2, 20), st.floats(1e-4, 1e3))
def test_more_seeds_find_smaller_slopes_and_slopes_scale_with_the_noise(seeds: int, variance: float) -> None:
    few, more, wide = (
        detectable_slope(pilot(v), n) for v, n in ((variance, seeds), (variance, seeds + 1), (4 * variance, seeds))
    )
    assert few is not None
    assert more is not None
    assert more < few
    assert wide == pytest.approx(2 * few)


def test_as_many_seeds_as_are_needed_find_the_slope_and_one_fewer_does_not() -> None:
    needed = seeds_to_find(pilot(1.0), 0.9)
    assert needed is not None
    enough, short = (detectable_slope(pilot(1.0), n) for n in (needed, needed - 1))
    assert enough is not None
    assert short is not None
    assert enough <= 0.9 < short


def test_noise_of_the_examples_that_sizes_do_not_share_is_cured_by_no_seeds() -> None:
    assert seeds_to_find(pilot(1e-6, examples=1.0), 0.5) is None
    assert seeds_to_find(pilot(1e-6, examples=1.0, common=1.0), 0.5) == 2


def test_a_wider_range_of_sizes_finds_smaller_slopes() -> None:
    narrow, wide = (detectable_slope(pilot(1.0), 3, sizes) for sizes in ((1e6, 4e6), (2e5, 6e7)))
    assert narrow is not None
    assert wide is not None
    assert wide < narrow / 3


def test_a_pilot_of_one_seed_says_nothing() -> None:
    alone = SizeMeans(SIZES, np.zeros(3), ((), (), ()), np.eye(3))
    assert detectable_slope(alone, 3) is None
    assert seeds_to_find(alone, 1.0) is None
