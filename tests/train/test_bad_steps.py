"""Bad steps on one of two real ranks: skipped, rolled back, or the run stopped."""

from __future__ import annotations

import json
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from distributed import run_ranks
from faults import Fault, train_with
from runs import config_of

from bigchem.config import RunConfig
from bigchem.data.loader import Loader
from bigchem.data.step_plan import open_data
from bigchem.run.log_files import BAD_STEPS
from bigchem.train.logging import ledger

FAULTS = (
    Fault("gradient", 1, (2,), nan),
    Fault("gradient", 0, (4,), inf),
    Fault("loss", 1, (5,), nan),
    Fault("loss", 0, (7,), inf),
)
BASE = ("zero0", "fp32")
QUICK = [BASE, ("zero3", "fp32")]
ALL = [(f"zero{stage}", precision) for precision in ("fp32", "bf16") for stage in range(4)]


def _all_setups(configs: list[RunConfig]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [train_with(config, FAULTS) for config in configs]


@pytest.fixture(
    scope="module", params=[pytest.param(QUICK, id="quick"), pytest.param(ALL, id="all", marks=pytest.mark.slow)]
)
def ended(request: Any, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Eight steps, four of them bad on one rank, at several stages and precisions."""
    runs, setups = tmp_path_factory.mktemp("bad"), request.param
    train = {"steps": 8, "log_every": 1}
    configs = [
        config_of(runs, small_data, f"{stage}-{precision}", train={**train, "ds_config": stage, "precision": precision})
        for stage, precision in setups
    ]
    results = run_ranks(_all_setups, 2, configs)
    return {setup: (configs[i], [rank[i] for rank in results]) for i, setup in enumerate(setups)}


def events(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.run_dir / "events.jsonl").read_text().splitlines()]


def rows(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_bad_step_leaves_weights_and_moments_as_they_were_on_every_rank(ended: Any) -> None:
    for _, ranks in ended.values():
        for steps, seen in ranks:
            assert steps == "8"
            assert {row["step"] for row in seen if row["before"] == row["after"]} == {2, 4, 5, 7}


def test_a_bad_step_is_recorded_with_its_examples(ended: Any) -> None:
    for config, _ in ended.values():
        found = [(e["step"], e["kind"]) for e in events(config)]
        assert found == [(2, "bad gradient"), (4, "bad gradient"), (5, "bad loss"), (7, "bad loss")]
        assert [e["action"] for e in events(config)] == [f"skipped ({n} of 5 in a row)" for n in (1, 1, 2, 1)]
        assert all(len(event["keys"]) > 4 for event in events(config))


def test_every_stage_goes_on_alike_after_bad_steps(ended: Any) -> None:
    curves = {s: [r["loss"] for r in rows(config) if r["step"] not in (5, 7)] for s, (config, _) in ended.items()}
    assert len(curves[BASE]) == 6
    for (_, precision), curve in curves.items():
        assert curve == pytest.approx(curves[BASE], rel=1e-5 if precision == "fp32" else 0.02)


def _one_after_the_other(runs: list[tuple[RunConfig, list[Fault]]]) -> list[str]:
    return [train_with(config, faults)[0] for config, faults in runs]


@pytest.fixture(scope="module")
def gone_back(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RunConfig, str]]:
    """Runs of twelve steps with checkpoints after 3, 6, 9 and 12, and a limit of three bad steps in a row."""
    runs = tmp_path_factory.mktemp("back")
    faults = {
        "once": [Fault("gradient", 1, (7, 8, 9), nan)],
        "always": [Fault("gradient", 1, (7, 8, 9), nan, times=99)],
        "first": [Fault("loss", 0, (1, 2, 3), inf)],
        "spike": [Fault("loss", 1, (11,), 40.0), Fault("loss", 1, (12,), nan)],
    }
    fields = {"train": {"steps": 12, "ledger": True}, "health": {"max_bad_steps": 3, "window": 8}}
    configs = {name: config_of(runs, small_data, name, **fields) for name in faults}
    results = run_ranks(_one_after_the_other, 2, [(configs[name], faults[name]) for name in faults])
    assert results[0] == results[1]
    return {name: (configs[name], results[0][i]) for i, name in enumerate(faults)}


def test_bad_steps_in_a_row_that_do_not_come_again_cost_nothing_but_time(gone_back: Any) -> None:
    (once, result), (other, _) = gone_back["once"], gone_back["spike"]
    assert result == "12"
    assert [row["step"] for row in rows(once)] == list(range(1, 13))
    assert [row["loss"] for row in rows(once)[:10]] == [row["loss"] for row in rows(other)[:10]]
    kinds = [(e["step"], e["kind"]) for e in events(once)]
    assert kinds == [*((n, "bad gradient") for n in (7, 8, 9)), (9, "roll back")]


def test_bad_steps_that_come_again_after_going_back_stop_the_run_with_their_examples(gone_back: Any) -> None:
    config, error = gone_back["always"]
    assert "3 bad steps in a row up to step 9, the last: the gradient norm is inf" in error
    assert "already rolled back to step 6" in error
    last = [e for e in events(config) if e["kind"] == "bad gradient"][-1]
    assert f"{len(last['keys'])} examples: {' '.join(last['keys'][:4])} and" in error
    assert sorted(p.name for p in (config.run_dir / "checkpoints").glob("step_*")) == ["step_00000003", "step_00000006"]


def test_bad_steps_before_the_first_checkpoint_stop_the_run(gone_back: Any) -> None:
    config, error = gone_back["first"]
    assert "there is no checkpoint to roll back to" in error
    assert BAD_STEPS in error
    assert events(config)[-1]["kind"] == "roll back"
    assert events(config)[-1]["action"].startswith("stopped: ")
    assert not list((config.run_dir / "checkpoints").glob("step_*"))


def test_a_loss_spike_is_left_out_and_a_bad_last_step_is_no_obstacle(gone_back: Any) -> None:
    config, result = gone_back["spike"]
    assert result == "12"
    assert [(event["step"], event["kind"]) for event in events(config)] == [(11, "loss spike"), (12, "bad loss")]
    assert "deviations above" in events(config)[0]["detail"]
    assert (config.run_dir / "checkpoints" / "step_00000012").is_dir()


def test_the_ledger_holds_every_example_of_every_step_once_also_after_going_back(gone_back: Any) -> None:
    config, _ = gone_back["once"]
    data = open_data(config.data)
    alone = Loader(data, config.data, config.seed, 0, 1)
    position, found = 0, ledger.read(config.run_dir)
    assert list(found) == list(range(1, 13))
    for keys in found.values():
        step = alone.plan.steps.at(position)
        assert keys == sorted(alone.keys(step))
        position = step.stop
