from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from distributed import run_ranks
from faults import Fault, train_with
from hypothesis import given
from hypothesis import strategies as st
from runs import config_of

from bigchem.config import HealthConfig, RunConfig
from bigchem.train.checkpoint import store
from bigchem.train.health import stragglers
from bigchem.train.health.stragglers import Warnings


def test_a_slow_rank_is_told_once_in_its_third_interval_and_again_after_it_has_recovered() -> None:
    warnings = Warnings(HealthConfig())
    slow, well = [1.0, 1.1, 2.4, 0.9], [1.0, 1.1, 1.2, 0.9]
    found = [warnings.slow_ranks(busy, 5.0) for busy in (slow, slow, slow, slow, well, slow, slow, slow)]
    assert [list(ranks) for ranks in found] == [[], [], [2], [], [], [], [], [2]]
    assert found[2][2] == 2.4


def test_of_two_ranks_the_slow_one_is_found() -> None:
    warnings = Warnings(HealthConfig())
    for _ in range(2):
        warnings.slow_ranks([1.0, 1.6], 5.0)
    assert warnings.slow_ranks([1.0, 1.6], 5.0) == {1: 1.6}


@given(st.lists(st.floats(0.0, 0.2), min_size=1, max_size=6))
def test_a_rank_alone_and_differences_that_do_not_matter_are_never_told(busy: list[float]) -> None:
    warnings = Warnings(HealthConfig())
    for _ in range(9):
        assert not warnings.slow_ranks(busy, 5.0)
        assert not warnings.slow_ranks(busy[:1], 0.1)


def test_waiting_for_data_is_told_once_until_it_is_over() -> None:
    warnings = Warnings(HealthConfig())
    found = [warnings.starved([0.1, wait], 10.0) for wait in (2.9, 3.1, 4.0, 1.0, 5.0)]
    assert found == [None, (1, 0.31), None, None, (1, 0.5)]


def test_a_disk_without_room_for_the_next_checkpoint_is_told_once_until_there_is_room() -> None:
    warnings = Warnings(HealthConfig())
    full = (False, True, True, False, True)
    assert [warnings.disk(now) for now in full] == [False, True, False, False, True]


def _slowed(runs: list[tuple[RunConfig, list[Fault]]]) -> None:
    stragglers.MIN_S, store.disk_room = 0.1, lambda folder: (10_000_000, 20_000_000)
    for config, faults in runs:
        train_with(config, faults)


@pytest.mark.slow
def test_a_slow_rank_slow_data_and_a_full_disk_are_told_once_each(small_data: Path, tmp_path: Path) -> None:
    """With fake free bytes."""
    steps = tuple(range(1, 99))
    fields: dict[str, Any] = {"train": {"steps": 14, "log_every": 2}, "checkpoint": {"every": 4}}
    slow = config_of(tmp_path, small_data, "slow", **fields)
    starved = config_of(tmp_path, small_data, "starved", **fields)
    faults = [Fault("forward", 1, steps, 0.3)], [Fault("data", 0, steps, 1.0), Fault("data", 1, steps, 1.0)]
    run_ranks(_slowed, 2, [(slow, faults[0]), (starved, faults[1])])
    events = {}
    for config in (slow, starved):
        lines = (config.run_dir / "events.jsonl").read_text().splitlines()
        events[config.name] = [json.loads(line) for line in lines]
    assert [event["kind"] for event in events["slow"]] == ["disk nearly full", "slow rank"]
    assert events["slow"][0]["detail"].startswith("10 MB free in ")
    assert events["slow"][1]["detail"].startswith("rank 1 (")
    kinds = [event["kind"] for event in events["starved"]]
    assert sorted(kinds) == ["data starvation", "disk nearly full"]
    (starvation,) = [event for event in events["starved"] if event["kind"] == "data starvation"]
    assert starvation["action"] == "put data.path on a local disk"
