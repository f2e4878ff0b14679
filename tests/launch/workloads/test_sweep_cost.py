from __future__ import annotations

import json
import os
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest
from owners import owned
from runs import config_of

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import HEADROOM, RunConfig
from bigchem.launch.cluster.fork_server import ForkServers
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.runs.history import Attempt
from bigchem.launch.submit import Submitted
from bigchem.launch.workloads import sweep
from bigchem.launch.workloads.sweep import SweepRun, read_budget, submit_sweep, wait_for_all
from bigchem.launch.workloads.sweep_cost import estimate, summary
from bigchem.run.log_files import BAD_STEPS

LOCAL = load_profile("local")
STEP = 1500 * (1 - HEADROOM)


def finish(config: RunConfig, tokens: int, training_s: float, overhead_s: float) -> None:
    """Makes the folder of a run that has finished with this speed and overhead."""
    run_dir, now = config.run_dir, time.time()
    owned(run_dir, str(os.getpid()), "local", world_size=LOCAL.world_size)
    (run_dir / "config.toml").write_text(toml.dump(config))
    row = {"step": config.train.steps, "tokens": tokens, "training_s": training_s}
    (run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    done = {"state": "finished", "time": now, "step": config.train.steps, "steps": config.train.steps}
    (run_dir / "state.json").write_text(json.dumps(done))
    attempt = Attempt(1, "7", 0, "here", LOCAL.world_size, 0, now, end="finished", seconds=training_s + overhead_s)
    (run_dir / "history.jsonl").write_text(json.dumps(asdict(attempt)) + "\n")


def test_a_runs_hours_come_from_the_speed_and_overhead_of_one_of_its_size(small_data: Path, tmp_path: Path) -> None:
    pilot = config_of(tmp_path / "pilots", small_data, "pilot")
    other_size = config_of(tmp_path / "pilots", small_data, "large", model={"preset": "sweep-1m"})
    finish(pilot, 10_000, training_s=20.0, overhead_s=30.0)
    run = config_of(tmp_path / "s", small_data, "run", train={"steps": 400})
    large = config_of(tmp_path / "s", small_data, "large", model={"preset": "sweep-1m"})
    cost, unknown = estimate([(run, LOCAL), (large, LOCAL)]).costs
    assert cost.seconds == pytest.approx(400 * STEP / 500 + 30)
    assert cost.left_s == cost.seconds
    assert cost.speed is not None
    assert cost.speed.source == "measured by pilot"
    assert (unknown.seconds, unknown.speed) == (None, None)
    finish(other_size, 10_000, training_s=100.0, overhead_s=50.0)
    found = estimate([(run, LOCAL), (large, LOCAL), (pilot, LOCAL)])
    assert found.costs[1].seconds == pytest.approx(6 * STEP / 100 + 50)
    assert found.costs[2].left_s == 0.0
    assert "2 runs, " in summary(found, 1)
    assert "starts, checkpoints and evaluation as measured in 2 finished runs" in summary(found, 1)


def test_without_a_measured_run_the_plans_speed_counts_on_gpus_it_knows(small_data: Path, tmp_path: Path) -> None:
    run = config_of(tmp_path / "s", small_data, "run", train={"precision": "bf16", "steps": 500})
    gpus = ClusterProfile(executor="slurm", gpus_per_node=2, tasks_per_node=2)
    assert estimate([(run, gpus)]).costs[0].speed is None
    assert "name a GPU with --gpu" in summary(estimate([(run, gpus)]), 1)
    for found in (
        estimate([(run, gpus)], "a100-80"),
        estimate([(run, gpus.model_copy(update={"gpu_type": "a100", "gpu_memory_gb": 84.0}))]),
    ):
        (cost,) = found.costs
        assert cost.speed is not None
        assert cost.speed.source == "planned for a100-80"
        assert cost.seconds == pytest.approx(500 * STEP / cost.speed.tokens_per_s)
        assert cost.disk is not None
        assert "GPU-hours" in summary(found, 1)


def test_runs_that_would_not_finish_in_the_budget_are_left_for_the_next_command(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is a stand-in: each run ends at once, with 10 s of training and 2 s of overhead."""
    runs = [config_of(tmp_path / "s", small_data, f"r{n}", train={"steps": s}) for n, s in enumerate((6, 600, 6))]
    started: list[str] = []

    def train(config: RunConfig, profile: ClusterProfile, servers: ForkServers) -> Submitted:
        started.append(config.name)
        finish(config, int(6 * STEP), training_s=10.0, overhead_s=2.0)
        return Submitted(config.run_dir, None, "")

    monkeypatch.setattr(sweep, "submit", train)
    left = submit_sweep([SweepRun(config, LOCAL) for config in runs], "s", lambda row: None, budget_s=100.0)
    assert started == ["r0", "r2"]  # the first measures the speed: 600 steps would take 1,000 s
    assert left == [runs[1].run_dir]


def test_a_trained_run_that_is_not_to_be_evaluated_is_not_started_again(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the short runs of `select` are, each time that the sweep is submitted."""
    run = config_of(tmp_path, small_data, "r", evaluate={"at_end": False}, train={"steps": 6})
    run.run_dir.mkdir(parents=True)
    (run.run_dir / "state.json").write_text('{"state": "trained", "step": 6, "steps": 6}')
    monkeypatch.setattr(sweep, "submit", lambda *given, **options: pytest.fail("was started"))
    seen: list[str] = []
    assert submit_sweep([SweepRun(run, LOCAL)], "s", lambda row: seen.append(row.state)) == []
    assert seen == ["trained"]


def test_waiting_ends_with_an_error_if_a_run_was_trained_but_not_evaluated(small_data: Path, tmp_path: Path) -> None:
    run = config_of(tmp_path, small_data, "r", train={"steps": 6}, evaluate={"at_end": True})
    run.run_dir.mkdir(parents=True)
    (run.run_dir / "state.json").write_text('{"state": "trained", "step": 6, "steps": 6, "reason": "not evaluated: x"}')
    (run.run_dir / "config.toml").write_text(toml.dump(run))
    with pytest.raises(UserError, match="1 of 1 runs failed: r; the first: not evaluated: x"):
        wait_for_all([run.run_dir], lambda row: None)
    without = run.model_copy(update={"evaluate": run.evaluate.model_copy(update={"at_end": False})})
    (run.run_dir / "config.toml").write_text(toml.dump(without))
    wait_for_all([run.run_dir], lambda row: None)


@pytest.mark.parametrize("may_diverge", [True, False])
def test_a_run_that_ends_by_bad_steps_is_a_failure_unless_it_may(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_diverge: bool
) -> None:
    """Training is a stand-in."""
    run = config_of(tmp_path, small_data, "r", train={"steps": 6})

    def diverge(config: RunConfig, profile: ClusterProfile, servers: ForkServers) -> Submitted:
        config.run_dir.mkdir(parents=True)
        state = {"state": "failed", "step": 3, "steps": 6, "reason": f"5 {BAD_STEPS} up to step 4"}
        (config.run_dir / "state.json").write_text(json.dumps(state))
        return Submitted(config.run_dir, None, "")

    monkeypatch.setattr(sweep, "submit", diverge)
    with nullcontext() if may_diverge else pytest.raises(UserError, match="1 of 1 runs failed: r; the first"):
        submit_sweep([SweepRun(run, LOCAL)], "s", lambda row: None, may_diverge=may_diverge)


def test_a_budget_is_a_number_with_a_unit_and_not_for_slurm(small_data: Path, tmp_path: Path) -> None:
    assert (read_budget("12h"), read_budget("90m"), read_budget("2.5d")) == (43200, 5400, 216000)
    for wrong in ("12", "0h", "h", "1:00"):
        with pytest.raises(UserError, match="cannot read"):
            read_budget(wrong)
    run = SweepRun(config_of(tmp_path, small_data, "r"), ClusterProfile(executor="slurm"))
    with pytest.raises(UserError, match="is for the local executor"):
        submit_sweep([run], "s", lambda row: None, budget_s=60.0)
