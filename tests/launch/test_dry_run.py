from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from owners import owned
from quickest import quickest
from runs import config_of

from bigchem.base import toml
from bigchem.config import RunConfig
from bigchem.launch import fit_check
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.dry_run import dry_run, dry_run_text
from bigchem.plan import from_config
from bigchem.plan.choices import Room, choices
from bigchem.plan.memory.peak import CONTEXT
from bigchem.plan.speed.hardware import gpu
from bigchem.plan.speed.step_time import Assumptions, Cluster

H100 = load_profile("h100", changes={"nodes": 2})


@pytest.fixture
def config(small_data: Path, tmp_path: Path) -> RunConfig:
    return config_of(tmp_path / "runs", small_data, "dry")


def verdicts(config: RunConfig, profile: ClusterProfile) -> dict[str, Any]:
    return fit_check.as_json(fit_check.judge(config, profile))


def test_a_dry_run_shows_configuration_script_and_verdicts_and_writes_nothing(
    config: RunConfig, tmp_path: Path
) -> None:
    text = dry_run_text(config, H100)
    assert "#SBATCH --nodes=2" in text
    assert 'preset = "sweep-0.2m"' in text
    assert "GPU memory   ok " in text
    assert not (tmp_path / "runs").exists()
    found = dry_run(config, H100)
    assert found["compile"] == "train.compile = auto: on, because the device is a GPU"
    assert f"# {found['compile']}" in text
    assert found["sbatch"] in text
    assert tomllib.loads(text[text.index("\n") : text.index("# sbatch")]) == found["config"]
    assert found["profile"]["nodes"] == 2


def test_the_command_is_quick_and_gives_json(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(toml.dump(config))
    words = [sys.executable, "-m", "bigchem", "submit", str(tmp_path / "run.toml"), "--dry-run", "--json"]
    output, seconds = quickest([*words, "--cluster", "h100"])
    assert json.loads(output)["verdict"].keys() == {"GPU memory", "time", "disk"}
    assert seconds < 1.5


def profile(**fields: Any) -> ClusterProfile:
    table = {"executor": "slurm", "gpus_per_node": 2, "tasks_per_node": 2, **fields}
    return toml.validate(ClusterProfile, table, "mine")


def test_memory_is_compared_with_the_profiles(config: RunConfig) -> None:
    found = verdicts(config, profile())["GPU memory"]
    needed, least = found["needed"], found["allocated"] + CONTEXT
    assert needed > least
    for room, verdict_of_it in [(2 * needed, "ok"), ((needed + least) / 2, "tight"), (0.9 * least, "no")]:
        judged = verdicts(config, profile(gpu_memory_gb=room / 1e9))["GPU memory"]
        assert (judged["verdict"], judged["room"]) == (verdict_of_it, pytest.approx(room, abs=2))
    assert "lower data.micro_tokens" in judged["message"]
    assert "gives no gpu_memory_gb" in found["message"]


def test_the_dry_run_and_the_planner_tell_the_same_bytes(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(toml.dump(config))
    planned = from_config.planned(str(tmp_path / "run.toml"), (), 2)
    cluster, room = Cluster(gpu("h100"), gpus=2), Room(80e9)
    rows = choices(planned.work, planned.tables, [config.data.micro_tokens], cluster, room, Assumptions())
    row = next(r for r in rows if (r.ds_config, r.setup.checkpoint_activations) == ("zero2", False))
    assert verdicts(config, profile())["GPU memory"]["needed"] == row.needed


def test_offloaded_states_are_compared_with_a_nodes_memory(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "off", train={"ds_config": "zero2_offload"})
    found = verdicts(config, profile(mem_per_gpu_gb=1e-5))
    assert found["host memory"]["verdict"] == "no"
    assert found["host memory"]["room"] == int(2e-5 * 2**30)
    assert verdicts(config_of(tmp_path, small_data, "x"), load_profile("local"))["host memory"]["room"] > 2**30
    on_cpu = {"gpus_per_node": 0, "tasks_per_node": 4, "mem_gb": 64}
    assert verdicts(config_of(tmp_path, small_data, "x"), profile(**on_cpu))["host memory"]["verdict"] == "ok"


def test_time_is_estimated_only_where_a_speed_was_measured(config: RunConfig) -> None:
    before = verdicts(config, profile())["time"]
    assert (before["verdict"], before["steps"]) == ("unknown", 6)
    assert "its speed is unknown" in before["message"]
    config.run_dir.mkdir(parents=True)
    row = {"step": 2, "tokens": 3000, "tokens_per_s": 2.0}
    (config.run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    owned(config.run_dir, world_size=4)
    after = verdicts(config, profile(time_min=10))["time"]
    assert after["seconds"] == pytest.approx(after["tokens"] / 2.0)
    assert (after["steps"], after["jobs"], after["verdict"]) == (4, 5, "ok")
    assert "on 4 processes, not 2" in after["message"]
    assert verdicts(config, profile(time_min=10, max_requeues=3))["time"]["verdict"] == "no"


def test_room_for_checkpoints_counts_all_that_are_kept(small_data: Path, tmp_path: Path) -> None:
    rules = {"every": 1, "keep": 2, "keep_every": 2}
    config = config_of(tmp_path, small_data, "disk", checkpoint=rules, validation={"every": 3, "split": "test"})
    found = verdicts(config, profile())["disk"]
    assert found["checkpoints"] == 2 + 3 + 1 + 1
    assert found["needed"] == found["checkpoints"] * found["checkpoint"]
    assert found["checkpoint"] == 12 * 219_120
