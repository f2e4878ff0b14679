from __future__ import annotations

import numpy as np
import pytest

from bigchem.sweep.scores.estimate import Estimate, difference, over_seeds, student_t


def test_students_t_agrees_with_published_tables() -> None:
    for dof, published in ((1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (20, 2.086), (120, 1.980)):
        assert student_t(dof) == pytest.approx(published, abs=1e-3)


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
