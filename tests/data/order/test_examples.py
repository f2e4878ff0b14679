from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.data.order.examples import Flat, Order, Windowed, permutation_key, permute
from bigchem.data.order.mixture import Mixture
from bigchem.data.ragged import IntArray


def order(seed: int, rows: dict[int, int], weights: dict[int, float]) -> Order:
    return Order({task: Flat(seed, task, n) for task, n in rows.items()}, Mixture(weights, rows))


@given(st.integers(1, 3000), st.integers(0, 2**31), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_permute_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    image = permute(np.arange(size), size, permutation_key(seed, 0, epoch))
    assert sorted(image) == list(range(size))


@given(st.integers(0, 10**12), st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_seeking_anywhere_gives_what_reading_through_gives(start: int, first: int, second: int) -> None:
    whole_order = order(5, {0: 1000, 1: 77, 3: 12}, {0: 2.0, 1: 1.0, 3: 0.5})
    whole = whole_order.examples(start, start + first + second)
    middle = start + first
    parts = [whole_order.examples(start, middle), whole_order.examples(middle, middle + second)]
    for name in ("task_ids", "rows", "epochs"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))


def test_an_epoch_holds_every_row_once_and_the_next_in_another_order() -> None:
    whole = order(0, {0: 500}, {0: 1.0})
    first, second = (whole.examples(500 * e, 500 * (e + 1)) for e in (0, 1))
    assert sorted(first.rows) == sorted(second.rows) == list(range(500))
    assert (first.rows != second.rows).any()
    assert set(first.epochs) == {0}
    assert set(second.epochs) == {1}


def test_seeds_and_tasks_have_orders_of_their_own() -> None:
    one = order(0, {0: 500, 1: 500}, {0: 1.0, 1: 1.0}).examples(0, 1000)
    other = order(1, {0: 500, 1: 500}, {0: 1.0, 1: 1.0}).examples(0, 1000)
    assert (one.rows != other.rows).any()
    assert (one.rows[one.task_ids == 0] != one.rows[one.task_ids == 1]).any()


def test_neighbouring_positions_are_not_neighbouring_rows() -> None:
    rows = order(0, {0: 100_000}, {0: 1.0}).examples(0, 2000).rows
    correlation = np.corrcoef(rows[:-1], rows[1:])[0, 1]
    assert abs(correlation) < 0.1


@pytest.mark.parametrize("total", [1, 2, 3])
def test_tiny_tasks_work(total: int) -> None:
    assert set(order(0, {0: total}, {0: 1.0}).examples(0, 50).rows) == set(range(total))


shards = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any).map(np.array)


@given(shards, st.integers(1, 15), st.integers(0, 3), st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_the_two_level_order_is_a_permutation_that_stays_within_a_window_of_shards(
    shard_rows: IntArray, window: int, epoch: int, seed: int
) -> None:
    windowed = Windowed(seed, 0, shard_rows, window)
    rows = windowed.at(np.arange(windowed.size), epoch)
    assert sorted(rows) == list(range(int(shard_rows.sum())))
    # Shards come in groups of `window`: once the order leaves a group, it does not return.
    shard = np.repeat(np.arange(len(shard_rows)), shard_rows)[rows]
    seen: list[set[int]] = []
    for start in range(windowed.size):
        here = int(shard[start])
        group = next((g for g in seen if here in g), None)
        if group is None:
            if not seen or len(seen[-1]) == window:
                seen.append(set())
            seen[-1].add(here)
        else:
            assert group is seen[-1]


def test_the_two_level_order_differs_between_epochs_and_seeds_and_seeks() -> None:
    shard_rows = np.full(40, 25)
    windowed = Windowed(3, 0, shard_rows, 4)
    index = np.arange(1000)
    first, second = windowed.at(index, 0), windowed.at(index, 1)
    assert (first != second).any()
    assert (first != Windowed(4, 0, shard_rows, 4).at(index, 0)).any()
    for start in (0, 99, 100, 101, 977):
        np.testing.assert_array_equal(windowed.at(index[start : start + 20], 0), first[start : start + 20])
    # Windows contain other shards in the next epoch.
    groups = [{frozenset((rows[w : w + 100] // 25).tolist()) for w in range(0, 1000, 100)} for rows in (first, second)]
    assert groups[0] != groups[1]


def test_a_window_as_wide_as_the_task_mixes_all_of_it() -> None:
    rows = Windowed(0, 0, np.full(10, 1000), 10).at(np.arange(1000), 0)
    assert len(np.unique(rows // 1000)) == 10
