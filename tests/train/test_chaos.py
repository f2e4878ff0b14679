"""A run killed many times equals an undisturbed one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chaos import end_well, ledger, start, train_in_chaos, used
from runs import config_of, losses

from bigchem.config import RunConfig


def chaotic(runs: Path, data_dir: Path, name: str, steps: int, tokens: int) -> RunConfig:
    """A low learning rate: rounding depends on the number of ranks, and with ReLU at 1e-3 the difference exceeds 1e-5
    within eighty steps, killed or not (docs/decisions.md)."""
    return config_of(
        runs,
        data_dir,
        name,
        data={"global_tokens": tokens},
        train={"steps": steps, "ledger": True, "worst_case": True},
        optimizer={"lr": 1e-4},
        checkpoint={"every": 2, "keep": 2},
    )


@pytest.mark.parametrize(
    ("kills", "steps", "tokens", "seed"),
    [
        (2, 12, 3000, 82),
        pytest.param(4, 24, 6000, 3, marks=pytest.mark.thorough),
        pytest.param(20, 80, 6000, 11, marks=pytest.mark.slow),
    ],
    ids=["2", "4", "20"],
)
def test_a_run_killed_at_random_moments_is_the_run_that_nobody_disturbed(
    small_data: Path, tmp_path: Path, kills: int, steps: int, tokens: int, seed: int
) -> None:
    """Kills any rank at any moment, also while a checkpoint is published or resharded. Restarts on one to three ranks,
    at stages 1 to 3."""
    whole = chaotic(tmp_path / "a", small_data, "whole", steps, tokens)
    end_well(whole, start(whole, 2))
    killed = chaotic(tmp_path / "b", small_data, "killed", steps, tokens)
    tally = train_in_chaos(killed, kills, seed, worlds=(1, 2, 2, 3), stages=(1, 2, 2, 3))
    print(json.dumps(vars(tally)))

    expected = ledger(whole.run_dir)
    assert sorted(expected) == list(range(min(expected), min(expected) + steps))
    assert ledger(killed.run_dir) == expected
    assert losses(killed) == pytest.approx(losses(whole), rel=1e-5)
    assert tally.kills == kills
    assert tally.resumed == sorted(tally.resumed)
    assert len(set(tally.worlds)) > 1
    assert tally.converted > 0
    checkpoint = used(whole.run_dir / "checkpoints") / whole.checkpoint.keep
    assert tally.max_bytes < (whole.checkpoint.keep + 2.5) * checkpoint
