from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.config import RunConfig, ScheduleConfig
from bigchem.train.schedule import multiplier

kinds = st.sampled_from(["constant", "linear", "cosine", "inverse_sqrt"])


@given(kinds, st.integers(0, 50), st.integers(1, 300), st.floats(0, 1))
def test_the_rate_rises_to_the_peak_and_never_rises_again(kind: str, warmup: int, steps: int, final: float) -> None:
    config = ScheduleConfig(kind=kind, warmup_steps=warmup, final=final)
    values = [multiplier(config, step, steps) for step in range(steps)]
    assert all(0 <= v <= 1 + 1e-9 for v in values)
    rising, falling = values[:warmup], values[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_last_step_has_the_final_share(kind: str) -> None:
    config = ScheduleConfig(kind=kind, warmup_steps=10, final=0.25)
    assert multiplier(config, 99, 100) == pytest.approx(0.25)
    assert multiplier(config, 10, 100) == pytest.approx(1.0)
    assert multiplier(config, 0, 100) == pytest.approx(0.1)


@given(st.integers(0, 50), st.integers(1, 80), st.integers(0, 200), st.floats(0, 1))
def test_wsd_warms_up_stays_at_the_peak_and_decays_evenly_to_the_final_share(
    warmup: int, decay: int, stable: int, final: float
) -> None:
    config = ScheduleConfig(kind="wsd", warmup_steps=warmup, decay_steps=decay, final=final)
    steps = warmup + stable + decay
    values = [multiplier(config, step, steps) for step in range(steps)]
    assert all(0 <= v <= 1 for v in values)
    assert values[:warmup] == sorted(values[:warmup])
    assert values[warmup : warmup + stable] == [1.0] * stable
    assert values[-1] == pytest.approx(final)
    falls = -np.diff([1.0, *values[warmup + stable :]])
    assert falls == pytest.approx((1 - final) / decay, abs=1e-12)


@pytest.mark.parametrize("schedule", [{"kind": "wsd"}, {"kind": "cosine", "decay_steps": 5}])
def test_decay_steps_and_wsd_belong_together(schedule: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="belong together with wsd"):
        ScheduleConfig.model_validate(schedule)


def test_a_run_too_short_for_its_schedule_is_refused() -> None:
    table = {"train": {"steps": 100}, "schedule": {"kind": "wsd", "warmup_steps": 60, "decay_steps": 41}}
    with pytest.raises(ValueError, match=r"= 101 > train\.steps = 100"):
        RunConfig.model_validate(table)


def test_inverse_sqrt_halves_in_four_times_the_steps() -> None:
    config = ScheduleConfig(kind="inverse_sqrt", warmup_steps=100)
    assert multiplier(config, 399, 1000) == pytest.approx(0.5)
