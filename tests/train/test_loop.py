"""A training run on two ranks and its resumption, observed from inside at each step."""

from __future__ import annotations

import json
import os
import signal
import threading
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import run_ranks
from faults import Fault, inject
from runs import config_of
from torch import distributed as dist

from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep, Loader
from bigchem.launch.runs.prepare import prepare
from bigchem.train import loop, schedule
from bigchem.train.checkpoint.store import published
from bigchem.train.health.time_limit import TimeLimit
from bigchem.train.logging.ledger import Ledger
from bigchem.train.saving import Saver, SaveResult

BAD, SIGNALLED, SPIKE = 3, 10, 11
"""Step numbers: a bad step at which a checkpoint is due; the step in which only rank 1 gets a signal; a loss spike in
the first step after the resume."""


def _watched(config: RunConfig) -> dict[str, Any]:
    """Trains until the signal, then to the end. Returns what this rank observed."""
    clocks: list[TimeLimit] = []
    saves: list[float] = []
    watched: list[bool] = []
    add, save, close = Ledger.add, Saver.save, Saver.close

    def clock(*arguments: Any, **more: Any) -> TimeLimit:
        clocks.append(TimeLimit(*arguments, **more))
        return clocks[-1]

    def adds(self: Ledger, step: int, loader: Loader, loaded: LoadedStep) -> None:
        if step == SIGNALLED - 1 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        add(self, step, loader, loaded)

    def saving(self: Saver, *arguments: Any, **more: Any) -> SaveResult | None:
        saved = save(self, *arguments, **more)
        saves.append(saved.published_s if saved else nan)
        return saved

    def closing(self: Saver) -> None:
        watched.append("bigchem-watchdog" in {thread.name for thread in threading.enumerate()})
        close(self)

    loop.TimeLimit, Ledger.add, Saver.save, Saver.close = clock, adds, saving, closing  # type: ignore[misc,assignment,method-assign]
    inject([Fault("loss", 0, (BAD,), nan), Fault("loss", 1, (SPIKE,), 40.0)])
    if dist.get_rank() == 0:
        prepare(config)
    dist.barrier()
    steps = [loop.train(config, torch.device("cpu")).steps]
    clock_s, save_s = [clock.save_s for clock in clocks], [saves[-1]]
    steps.append(loop.train(config, torch.device("cpu")).steps)
    return {"steps": steps, "clock_s": clock_s, "save_s": save_s, "watched": watched}


@pytest.fixture(scope="module")
def seen(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, list[dict[str, Any]]]:
    runs = tmp_path_factory.mktemp("loop")
    config = config_of(runs, small_data, "run", train={"steps": 13}, health={"window": 8}, schedule={"warmup_steps": 4})
    return config, run_ranks(_watched, 2, config, timeout=90)


Seen = tuple[RunConfig, list[dict[str, Any]]]


def test_a_signal_on_one_rank_stops_all_ranks_in_the_same_step(seen: Seen) -> None:
    assert [rank["steps"] for rank in seen[1]] == [[SIGNALLED, 13]] * 2


def test_nothing_is_published_after_a_bad_step_but_after_the_next_good_one(seen: Seen) -> None:
    steps = [int(path.name[-8:]) for path in published(seen[0].run_dir / "checkpoints")]
    assert steps == [BAD + 1, 6, 9, SIGNALLED, 12, 13]


def test_what_losses_were_usual_is_known_after_a_resumption(seen: Seen) -> None:
    rows = [json.loads(line) for line in (seen[0].run_dir / "events.jsonl").read_text().splitlines()]
    found = [(row["step"], row["kind"]) for row in rows]
    assert found == [(BAD, "bad loss"), (SIGNALLED, "stop"), (SPIKE, "loss spike")]


def test_every_step_has_its_own_learning_rate(seen: Seen) -> None:
    config, _ = seen
    rows = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    expected = [1e-3 * schedule.multiplier(config.schedule, number, 13) for number in range(13)]
    assert [row["lr"] for row in rows] == expected
    assert len(set(expected[:6])) > 4


def test_training_time_adds_up_over_a_resumption(seen: Seen) -> None:
    rows = [json.loads(line) for line in (seen[0].run_dir / "metrics.jsonl").read_text().splitlines()]
    sums = [sum(row["step_s"] for row in rows[: number + 1]) for number in range(13)]
    assert [row["training_s"] for row in rows] == pytest.approx(sums, abs=0.2)


def test_the_clock_knows_how_long_the_last_save_took(seen: Seen) -> None:
    for rank in seen[1]:
        assert rank["clock_s"] == rank["save_s"]


def test_the_last_copy_is_waited_for_without_the_watchdog(seen: Seen) -> None:
    assert [rank["watched"] for rank in seen[1]] == [[False, False]] * 2
