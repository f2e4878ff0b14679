from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.data.order.mixture import MAX_PERIOD, Mixture, check_end, fair_schedule, quotas, tempered

decimals = st.lists(st.integers(1, 60).map(lambda n: n / 10), min_size=1, max_size=5)
anything = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=6)


@given(st.one_of(decimals, anything))
@settings(max_examples=25, deadline=None)
def test_every_prefix_is_within_one_example_of_its_quota(weights: list[float]) -> None:
    quota = quotas(weights)
    schedule = fair_schedule(quota)
    counts = np.cumsum(schedule[:, None] == np.arange(len(quota)), axis=0)
    due = np.arange(1, len(schedule) + 1)[:, None] * quota / len(schedule)
    assert np.abs(counts - due).max() <= max(0.0, 1 - 1 / max(1, 2 * len(quota) - 2)) + 1e-9  # Tijdeman's bound
    assert (counts[-1] == quota).all()


@pytest.mark.parametrize(
    ("weights", "quota"),
    [([1.0] * 5, [1] * 5), ([0.3, 0.7], [3, 7]), ([2.0], [1]), ([0.1, 0.2, 0.3], [1, 2, 3]), ([1e6, 1e-6], None)],
)
def test_ratios_that_a_short_period_can_hold_are_exact(weights: list[float], quota: list[int] | None) -> None:
    assert quotas(weights).tolist() == (quota or [MAX_PERIOD - 1, 1])


@pytest.mark.parametrize("weights", [[1e-9] * 4 + [1.0], [1.0] + [1e-300] * 6, [1e-320, 1.0], [1e6, 1, 1, 1, 1]])
def test_no_task_is_rounded_away_however_small_its_weight(weights: list[float]) -> None:
    quota = quotas(weights)
    assert quota.min() >= 1
    rows = dict.fromkeys(range(len(weights)), 3)
    mixture = Mixture(dict(enumerate(weights)), rows, max_epochs=2)
    assert mixture.end == 6 * len(weights)
    assert np.bincount(mixture.draws(0, 10**6)[0]).tolist() == [6] * len(weights)


@given(anything)
@settings(max_examples=50, deadline=None)
def test_other_ratios_are_met_within_one_period_of_the_longest(weights: list[float]) -> None:
    quota = quotas(weights)
    assert (quota >= 1).all()
    assert np.abs(quota / quota.sum() - np.array(weights) / sum(weights)).max() <= len(weights) / MAX_PERIOD


mixtures = st.dictionaries(st.integers(0, 6), st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=5)


@given(mixtures, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_capped_tasks_give_every_row_as_often_as_the_cap_says_and_then_nothing(
    tasks: dict[int, tuple[int, int]], max_epochs: int
) -> None:
    weights, rows = {t: float(w) for t, (w, _) in tasks.items()}, {t: n for t, (_, n) in tasks.items()}
    mixture = Mixture(weights, rows, max_epochs)
    assert mixture.end == max_epochs * sum(rows.values())
    slots, nths = mixture.draws(0, mixture.end + 100)
    for slot, task in enumerate(mixture.task_ids.tolist()):
        assert nths[slots == slot].tolist() == list(range(max_epochs * rows[task]))


@given(mixtures, st.integers(0, 3), st.data())
@settings(max_examples=60, deadline=None)
def test_seeking_anywhere_gives_what_reading_through_gives(
    tasks: dict[int, tuple[int, int]], max_epochs: int, data: st.DataObject
) -> None:
    mixture = Mixture({t: float(w) for t, (w, _) in tasks.items()}, {t: n for t, (_, n) in tasks.items()}, max_epochs)
    whole = np.stack(mixture.draws(0, 300))
    start = data.draw(st.integers(0, whole.shape[1]))
    stop = data.draw(st.integers(start, 300))
    np.testing.assert_array_equal(np.stack(mixture.draws(start, stop)), whole[:, start:stop])


def test_the_tasks_that_are_left_share_in_their_own_ratio() -> None:
    mixture = Mixture({0: 1.0, 1: 1.0, 2: 3.0}, {0: 10, 1: 1000, 2: 3000}, max_epochs=1)
    slots, _ = mixture.draws(60, 1060)
    assert np.bincount(slots, minlength=3).tolist() == [0, 250, 750]


def test_a_far_position_costs_no_more_than_a_near_one() -> None:
    mixture = Mixture({0: 1.0, 1: 2.0}, {0: 10**9, 1: 10**9})
    slots, nths = mixture.draws(3 * 10**15, 3 * 10**15 + 3)
    assert sorted(slots.tolist()) == [0, 1, 1]
    assert nths[slots == 0].tolist() == [10**15]


def test_temperature_goes_from_sizes_to_weights() -> None:
    weights, rows = {0: 1.0, 1: 1.0}, {0: 100, 1: 10_000}
    by_size = tempered(weights, rows, 1.0)
    assert by_size[1] / by_size[0] == pytest.approx(100)
    assert log(tempered(weights, rows, 2.0)[1] / tempered(weights, rows, 2.0)[0], 10) == pytest.approx(1)
    assert tempered(weights, rows, 1e9)[1] == pytest.approx(tempered(weights, rows, 1e9)[0])
    assert tempered({0: 2.0, 1: 1.0}, {0: 5, 1: 5}, 3.0)[0] == 2 * tempered({0: 2.0, 1: 1.0}, {0: 5, 1: 5}, 3.0)[1]


def test_going_past_the_end_says_what_to_do() -> None:
    check_end(None, 10**12, "data.mixture")
    check_end(11, 10, "data.mixture")
    with pytest.raises(UserError, match="used up after 11 examples"):
        check_end(11, 11, "data.mixture")
