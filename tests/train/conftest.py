"""Runs shared by several test files, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed import run_ranks
from runs import all_in_two_parts, config_of
from shared import made_once

from bigchem.config import RunConfig


@pytest.fixture(scope="session")
def trained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, RunConfig]:
    """A run on two ranks at every ZeRO stage, each trained once to the end and once in two parts."""

    def of(runs: Path) -> dict[int, RunConfig]:
        names = {stage: f"zero{stage}" for stage in (0, 1, 2, 3)}
        return {n: config_of(runs, small_data, name, train={"ds_config": name}) for n, name in names.items()}

    def make(runs: Path) -> None:
        assert run_ranks(all_in_two_parts, 2, [*of(runs).values()]) == [[6] * 4] * 2

    return of(made_once(tmp_path_factory, "trained", make))
