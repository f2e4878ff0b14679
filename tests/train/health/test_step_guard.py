from __future__ import annotations

import json
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.config import HealthConfig
from bigchem.train.health.step_guard import RollBacks, StepGuard

CONFIG = HealthConfig(window=16)


def run(guard: StepGuard, losses: list[float], norm: float = 1.0) -> list[str | None]:
    """The kind of bad step for each loss."""
    kinds = []
    for loss in losses:
        bad = guard.judge_step(loss, norm, guard.judge_loss(loss))
        kinds.append(bad and bad.kind)
    return kinds


def curve(seed: int, steps: int, noise: float) -> list[float]:
    """A typical falling loss with normal noise."""
    step = np.arange(steps)
    return (2 + 5 * np.exp(-step / 60) + noise * np.random.default_rng(seed).normal(size=steps)).tolist()


@pytest.mark.parametrize("loss", [nan, inf, -inf])
def test_a_loss_that_is_not_finite_is_bad_from_the_first_step_on(loss: float) -> None:
    assert run(StepGuard(CONFIG, {}), [loss]) == ["loss"]


def test_a_gradient_that_is_not_finite_is_bad() -> None:
    assert run(StepGuard(CONFIG, {}), [2.0], inf) == ["gradient"]
    assert run(StepGuard(CONFIG, {}), [2.0], nan) == ["gradient"]


@given(st.integers(0, 10**6), st.floats(0, 0.3))
def test_noise_is_no_spike(seed: int, noise: float) -> None:
    assert not any(run(StepGuard(HealthConfig(), {}), curve(seed, 300, noise)))


@given(st.integers(0, 10**6), st.floats(0.01, 0.3))
def test_a_spike_is_found_and_does_not_hide_the_next(seed: int, noise: float) -> None:
    guard = StepGuard(HealthConfig(), {})
    run(guard, curve(seed, 300, noise))
    assert run(guard, [9.0, 9.0, 9.0, 2.0]) == ["spike", "spike", "spike", None]


def test_a_spike_below_the_median_is_none_and_zero_switches_the_judgement_off() -> None:
    guard = StepGuard(CONFIG, {})
    run(guard, curve(0, 100, 0.05))
    assert run(guard, [0.01]) == [None]
    off = StepGuard(HealthConfig(window=16, spike_zscore=0.0), {})
    assert not any(run(off, [*curve(0, 100, 0.05), 1e6]))


def test_nothing_is_judged_before_the_window_is_full() -> None:
    losses = [2.0] * 15
    assert run(StepGuard(CONFIG, {}), [*losses, 1e6])[-1] is None
    assert run(StepGuard(CONFIG, {}), [*losses, 2.0, 1e6])[-1] == "spike"


@given(st.lists(st.one_of(st.floats(0.5, 20), st.just(nan), st.just(inf)), min_size=1, max_size=80), st.integers(0, 79))
def test_a_resumed_run_judges_as_an_uninterrupted_one(losses: list[float], cut: int) -> None:
    whole = StepGuard(CONFIG, {})
    expected = run(whole, losses)
    first = StepGuard(CONFIG, {})
    found = run(first, losses[:cut])
    again = StepGuard(CONFIG, json.loads(json.dumps(first.state())))
    found += run(again, losses[cut:])
    assert (found, again.state()) == (expected, whole.state())


def test_bad_steps_in_a_row_exhaust_the_run_and_a_good_one_forgives_them() -> None:
    guard = StepGuard(HealthConfig(max_bad_steps=3), {})
    run(guard, [nan, nan, 2.0, nan, nan])
    assert not guard.exhausted
    run(guard, [nan])
    assert guard.exhausted
    assert guard.skipped == {"loss": 5}


def test_a_run_goes_back_to_a_checkpoint_once_and_never_to_none() -> None:
    roll_backs = RollBacks()
    assert "no checkpoint" in str(roll_backs.refusal(0))
    assert roll_backs.refusal(6) is None
    assert "already rolled back to step 6" in str(roll_backs.refusal(6))
    assert roll_backs.refusal(9) is None
