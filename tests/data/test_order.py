from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.data.order import PERIOD, Order, fair_schedule, permutation_key, permute, quantise

weights = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=6)


@given(weights)
@settings(max_examples=30, deadline=None)
def test_every_prefix_is_within_one_example_of_exact_proportions(weights: list[float]) -> None:
    quota = quantise(np.array(weights), PERIOD)
    schedule = fair_schedule(quota)
    counts = np.cumsum(schedule[:, None] == np.arange(len(quota)), axis=0)
    due = np.arange(1, PERIOD + 1)[:, None] * quota / PERIOD
    assert np.abs(counts - due).max() < 1.0
    assert (counts[-1] == quota).all()


@given(st.integers(1, 3000), st.integers(0, 2**31), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_permute_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    image = permute(np.arange(size), size, permutation_key(seed, 0, epoch))
    assert sorted(image) == list(range(size))


@given(st.integers(0, 10**12), st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_seeking_anywhere_gives_what_reading_through_gives(start: int, first: int, second: int) -> None:
    order = Order(5, {0: 1000, 1: 77, 3: 12}, {0: 2.0, 1: 1.0, 3: 0.5})
    whole = order.examples(start, start + first + second)
    parts = [order.examples(start, start + first), order.examples(start + first, start + first + second)]
    for name in ("task_ids", "rows", "epochs"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))


def test_an_epoch_holds_every_row_once_and_the_next_in_another_order() -> None:
    order = Order(0, {0: 500}, {0: 1.0})
    first, second = (order.examples(500 * e, 500 * (e + 1)).rows for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(500))
    assert (first != second).any()


def test_seeds_and_tasks_have_orders_of_their_own() -> None:
    one = Order(0, {0: 500, 1: 500}, {0: 1.0, 1: 1.0}).examples(0, 1000)
    other = Order(1, {0: 500, 1: 500}, {0: 1.0, 1: 1.0}).examples(0, 1000)
    assert (one.rows != other.rows).any()
    assert (one.rows[one.task_ids == 0] != one.rows[one.task_ids == 1]).any()


def test_neighbouring_positions_are_not_neighbouring_rows() -> None:
    rows = Order(0, {0: 100_000}, {0: 1.0}).examples(0, 2000).rows
    correlation = np.corrcoef(rows[:-1], rows[1:])[0, 1]
    assert abs(correlation) < 0.1


@pytest.mark.parametrize("total", [1, 2, 3])
def test_tiny_tasks_work(total: int) -> None:
    assert set(Order(0, {0: total}, {0: 1.0}).examples(0, 50).rows) == set(range(total))


def test_a_trained_task_is_never_rounded_away() -> None:
    assert quantise(np.array([1e6, 1e-6]), PERIOD).tolist() == [PERIOD - 1, 1]
