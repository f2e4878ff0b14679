from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.config import ScheduleConfig
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


def test_inverse_sqrt_halves_in_four_times_the_steps() -> None:
    config = ScheduleConfig(kind="inverse_sqrt", warmup_steps=100)
    assert multiplier(config, 399, 1000) == pytest.approx(0.5)
