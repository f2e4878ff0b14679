from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.data.batches import Steps, accumulation, deal
from bigchem.data.order import Order

GLOBAL, MICRO = 4000, 500


def steps(seed: int = 0) -> Steps:
    rng = np.random.default_rng(1)
    lengths = {task: rng.integers(2, 100, (200, 2)) for task in (0, 2)}
    return Steps(Order(seed, {0: 200, 2: 200}, {0: 1.0, 2: 3.0}), lengths, GLOBAL)


def test_steps_fill_the_budget_and_follow_each_other() -> None:
    plan, position = steps(), 0
    for _ in range(20):
        step = plan.at(position)
        assert step.start == position
        assert GLOBAL - 200 < step.tokens <= GLOBAL
        position = step.stop


def test_a_step_is_the_same_however_it_was_reached() -> None:
    walked, position = steps(), 0
    for _ in range(7):
        position = walked.at(position).stop
    jumped = steps().at(position)
    np.testing.assert_array_equal(walked.at(position).rows, jumped.rows)


def test_an_example_longer_than_the_budget_is_a_step_of_its_own() -> None:
    plan = Steps(Order(0, {0: 3}, {0: 1.0}), {0: np.full((3, 2), 5000)}, GLOBAL)
    assert plan.at(0).stop == 1


tokens = st.lists(st.integers(2, 200), min_size=1, max_size=80).map(np.array)


@given(tokens, st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_every_example_is_dealt_once_and_fits(tokens: np.ndarray, world_size: int) -> None:
    dealt = deal(tokens, world_size, MICRO, GLOBAL)
    assert len(dealt) == world_size
    assert len({len(rank) for rank in dealt}) == 1
    flat = [i for rank in dealt for chosen in rank for i in chosen]
    assert sorted(flat) == list(range(len(tokens)))
    assert max(tokens[chosen].sum() for rank in dealt for chosen in rank) <= MICRO


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_any_sequence_of_world_sizes_sees_the_uninterrupted_order(world_sizes: list[int], seed: int) -> None:
    """Stops after every step, each time going on with another number of ranks."""
    position, seen = 0, []
    for world_size in world_sizes:
        step = steps(seed).at(position)
        dealt = deal(step.lengths.sum(axis=1), world_size, MICRO, GLOBAL)
        order = sorted(int(i) for rank in dealt for chosen in rank for i in chosen)
        seen += [(int(step.task_ids[i]), int(step.rows[i])) for i in order]
        position = step.stop
    whole = Order(seed, {0: 200, 2: 200}, {0: 1.0, 2: 3.0}).examples(0, position)
    assert seen == list(zip(whole.task_ids.tolist(), whole.rows.tolist(), strict=True))


def test_micro_batches_are_balanced() -> None:
    step = steps().at(0)
    dealt = deal(step.lengths.sum(axis=1), 4, MICRO, GLOBAL)
    loads = [step.lengths[chosen].sum() for rank in dealt for chosen in rank]
    assert max(loads) - min(loads) < step.lengths.sum(axis=1).max()


def test_accumulation_is_the_smallest_that_holds_the_step() -> None:
    assert [accumulation(w, 500, 4000) for w in (1, 2, 3, 8, 9)] == [8, 4, 3, 1, 1]
