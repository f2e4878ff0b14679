"""Runs shared by several test files, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed import run_ranks
from runs import config_of, train_in_two_parts

from bigchem.config import RunConfig


@pytest.fixture(scope="session")
def trained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, RunConfig]:
    """A run on two ranks at every ZeRO stage, each trained once to the end and once in two parts."""
    runs = tmp_path_factory.mktemp("trained")
    configs = {}
    for stage in (0, 1, 2, 3):
        config = config_of(runs, small_data, f"zero{stage}", train={"ds_config": f"zero{stage}"})
        assert run_ranks(train_in_two_parts, 2, config) == [6, 6]
        configs[stage] = config
    return configs
