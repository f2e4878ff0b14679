from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import scale_of
from bigchem.sweep.scores.scales import second_scale


@given(st.floats(0.001, 0.999), st.floats(-3, 3))
def test_a_constant_factor_of_the_odds_is_a_constant_distance(share: float, shift: float) -> None:
    scale = second_scale(scale_of("top1"))
    assert scale is not None
    odds = share / (1 - share) * math.exp(shift)
    here, there = scale.values(np.array([share, odds / (1 + odds)]), None)
    assert there - here == pytest.approx(shift, abs=1e-6)


def test_a_share_at_its_bound_is_half_an_example_away_and_unknown_without_a_count() -> None:
    scale = second_scale(scale_of("top1"))
    assert scale is not None
    assert scale.estimate(Estimate(0.0), None) is None
    found = scale.estimate(Estimate(0.0, 0.0, 0.1), 100)
    assert found is not None
    assert found.value == pytest.approx(math.log(0.5 / 100.5))


def test_an_interval_beyond_what_a_share_can_be_ends_at_its_bound() -> None:
    scale = second_scale(scale_of("top1"))
    assert scale is not None
    found = scale.estimate(Estimate(0.95, 0.9, 1.02), 100)
    assert found is not None
    assert found.high == pytest.approx(math.log(100.5 / 0.5))


def test_losses_are_read_in_logarithms_and_correlations_in_log_odds_and_r2_on_one_scale() -> None:
    for metric, name in (("loss", "log"), ("levenshtein", "log"), ("pearson", "log-odds")):
        scale = second_scale(scale_of(metric))
        assert scale is not None
        assert scale.name == name
    assert second_scale(scale_of("r2")) is None
