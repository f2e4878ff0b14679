from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.config import HEADROOM
from bigchem.data.order import steps as batches
from bigchem.data.order.examples import Flat, Order
from bigchem.data.order.mixture import Mixture
from bigchem.data.order.steps import Steps, accumulation, deal
from bigchem.data.ragged import IntArray

GLOBAL, MICRO = 4000, 500
BUDGET = GLOBAL * (1 - HEADROOM)


def steps(
    seed: int = 0, rows: int = 200, weights: tuple[float, float] = (1.0, 3.0), max_epochs: int = 0, longest: int = 100
) -> Steps:
    rng = np.random.default_rng(1)
    lengths = {task: rng.integers(2, longest, (rows, 2)) for task in (0, 2)}
    mixture = Mixture(dict(zip((0, 2), weights, strict=True)), {0: rows, 2: rows}, max_epochs)
    order = Order({task: Flat(seed, task, rows) for task in (0, 2)}, mixture)
    return Steps(order, {task: lambda n, epochs, of=of: of[n] for task, of in lengths.items()}, GLOBAL)


def test_steps_fill_the_budget_and_follow_each_other() -> None:
    plan, position = steps(), 0
    for _ in range(20):
        step = plan.at(position)
        assert step.start == position
        assert BUDGET - 200 < step.tokens <= BUDGET
        position = step.stop


def test_a_step_is_the_same_however_it_was_reached() -> None:
    walked, position = steps(), 0
    for _ in range(7):
        position = walked.at(position).stop
    jumped = steps().at(position)
    np.testing.assert_array_equal(walked.at(position).rows, jumped.rows)


@given(st.integers(0, 60), st.integers(0, 3), st.integers(3, 400))
@settings(max_examples=25, deadline=None)
def test_where_a_step_starts_is_where_walking_arrives(step: int, seed: int, longest: int) -> None:
    plan, position = steps(seed, longest=longest), 0
    for _ in range(step):
        position = plan.at(position).stop
    assert steps(seed, longest=longest).position_of(step) == position


def test_seeking_crosses_blocks_and_reports_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, reported = steps(), []
    expected = plan.position_of(50)
    monkeypatch.setattr(batches, "BLOCK", 300)
    assert steps().position_of(50, reported.append) == expected
    assert reported[-1] == 50
    assert len(reported) > 5


def test_an_example_longer_than_the_budget_is_a_step_of_its_own() -> None:
    order = Order({0: Flat(0, 0, 3)}, Mixture({0: 1.0}, {0: 3}))
    plan = Steps(order, {0: lambda n, epochs: np.full((len(n), 2), 5000)}, GLOBAL)
    assert plan.at(0).stop == 1
    assert plan.position_of(4) == 4


def test_the_last_step_of_capped_data_is_what_is_left_and_the_next_is_refused() -> None:
    plan = steps(max_epochs=2)
    position, seen = 0, 0
    while position < 800:
        step = plan.at(position)
        seen += len(step.rows)
        position = step.stop
    assert seen == position == 800
    with pytest.raises(UserError, match="used up after 800 examples"):
        plan.at(position)


tokens = st.lists(st.integers(2, 200), min_size=1, max_size=80).map(np.array)


@given(tokens, st.integers(1, 9), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_every_example_is_dealt_once_and_fits(tokens: IntArray, world_size: int, random: object) -> None:
    cost = tokens * np.random.default_rng(len(tokens)).integers(1, 50, len(tokens))
    dealt = deal(tokens, world_size, MICRO, GLOBAL, cost=cost)
    shares = [dealt.share(rank) for rank in range(world_size)]
    assert {len(share) for share in shares} == {dealt.grad_accum_steps}
    flat = [i for share in shares for chosen in share for i in chosen]
    assert sorted(flat) == list(range(len(tokens)))
    assert max(tokens[chosen].sum() for share in shares for chosen in share) <= MICRO
    for rank, accum, chosen in dealt:
        np.testing.assert_array_equal(shares[rank][accum], chosen)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """World sizes, accumulations (0: as many as needed) and steps done before each stop."""
    return draw(
        st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0, 9]), st.integers(1, 4)), min_size=2, max_size=4)
    )


@pytest.mark.heavy
@given(
    histories(),
    st.integers(0, 3),
    st.integers(3, 300),
    st.tuples(st.floats(0.1, 9.0), st.floats(0.1, 9.0)),
)
@settings(max_examples=40, deadline=None)
def test_any_history_of_world_sizes_accumulations_and_stops_sees_the_uninterrupted_run(
    history: list[tuple[int, int, int]], seed: int, rows: int, weights: tuple[float, float]
) -> None:
    """Every attempt starts from the number of examples consumed alone, and must equal an uninterrupted run on one rank,
    step by step."""
    whole, position = steps(seed, rows, weights), 0
    expected = []
    for _ in range(sum(count for *_, count in history)):
        step = whole.at(position)
        expected.append(list(zip(step.task_ids.tolist(), step.rows.tolist(), step.epochs.tolist(), strict=True)))
        position = step.stop

    seen, position = [], 0
    for world_size, accum, count in history:
        resumed = steps(seed, rows, weights)
        for _ in range(count):
            step = resumed.at(position)
            by_ranks = []
            for rank in range(world_size):  # each rank computes its share by itself
                own = resumed.at(position)
                dealt = deal(own.lengths.sum(axis=1), world_size, MICRO, GLOBAL, grad_accum_steps=accum or None)
                for chosen in dealt.share(rank):
                    by_ranks += [(i, int(own.task_ids[i]), int(own.rows[i]), int(own.epochs[i])) for i in chosen]
            seen.append([example[1:] for example in sorted(by_ranks)])
            position = step.stop
    assert seen == expected


@given(st.integers(0, 5), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_costs_differ_by_less_than_one_example(seed: int, world_size: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, 100, 300)
    cost = tokens * rng.integers(90, 110, 300)
    roomy = 10**6  # nothing is exchanged to fit
    spent = [int(cost[chosen].sum()) for _, _, chosen in deal(tokens, world_size, roomy, roomy, cost=cost)]
    assert max(spent) - min(spent) <= cost.max()


@given(st.integers(0, 50), st.integers(2, 20))
@settings(max_examples=30, deadline=None)
def test_tokens_of_micro_batches_of_equal_cost_differ_by_less_than_one_example(seed: int, bins: int) -> None:
    """Examples of similar tokens are dealt in one round."""
    tokens = np.random.default_rng(seed).integers(2, 500, 200)
    dealt = deal(tokens, bins, 10**6, 10**6, cost=np.ones(200, dtype=np.int64))
    whole = [tokens[chosen].sum() for _, _, chosen in dealt if len(chosen) == -(-200 // bins)]
    assert max(whole) - min(whole) <= tokens.max()


@pytest.mark.parametrize("world_size", [16, 64])
def test_short_micro_batches_take_no_more_accumulation_than_they_need(world_size: int) -> None:
    """Few examples fit into 1,024 tokens: the emptiest micro-batch alone often allows no exchange."""
    rng = np.random.default_rng(0)
    room = world_size * 4 * 1024
    for _ in range(5):
        drawn = np.minimum(rng.lognormal(4.6, 0.7, room // 60).astype(np.int64) + 8, 400)
        tokens = drawn[: np.searchsorted(np.cumsum(drawn), room * (1 - HEADROOM))]
        dealt = deal(tokens, world_size, 1024, room, cost=tokens * (1000 + tokens))
        assert dealt.grad_accum_steps == 4
        assert max(tokens[chosen].sum() for _, _, chosen in dealt) <= 1024


def test_a_step_of_just_the_micro_batches_room_fits_into_them() -> None:
    """The purpose of HEADROOM: none of these steps needs one more, nearly empty, micro-batch on every rank."""
    rng = np.random.default_rng(0)
    for world_size in (4, 64):
        for _ in range(5):
            drawn = np.minimum(rng.lognormal(4.6, 0.7, 200 * world_size).astype(np.int64) + 8, 1024)
            room = world_size * 16384
            tokens = drawn[: np.searchsorted(np.cumsum(drawn), room * (1 - HEADROOM))]
            dealt = deal(tokens, world_size, 16384, room)
            assert dealt.grad_accum_steps == 1
            loads = [tokens[chosen].sum() for _, _, chosen in dealt]
            assert sum(loads) / room > 0.99
            assert max(loads) <= 16384


def test_accumulation_is_the_smallest_that_holds_the_step() -> None:
    assert [accumulation(w, 500, 4000) for w in (1, 2, 3, 8, 9)] == [8, 4, 3, 1, 1]


def test_examples_that_do_not_pack_get_one_more_accumulation_step_unless_it_was_given() -> None:
    tokens = np.full(8, 300)  # one in a micro-batch of 500
    assert deal(tokens, 4, 500, 2000).grad_accum_steps == 2
    assert deal(tokens, 4, 500, 2000, grad_accum_steps=3).grad_accum_steps == 3
    with pytest.raises(UserError, match="does not fit into 4 x 1 micro-batches of 500"):
        deal(tokens, 4, 500, 2000, grad_accum_steps=1)


def test_an_example_that_no_micro_batch_holds_is_refused() -> None:
    with pytest.raises(UserError, match="700 tokens"):
        deal(np.array([10, 700]), 1, 500, 2000)
