"""`bigchem plan --tune` on a real Slurm: an array of short runs, one of which fails, and the fastest's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import owners
import pytest
from runs import config_of, losses

from bigchem.base import toml
from bigchem.config import RunConfig
from bigchem.ds_config import ds_config_for
from bigchem.launch.slurm.testbed.bed import Bed
from bigchem.launch.workloads.tune import best_rows, short_run
from bigchem.plan import from_config
from bigchem.plan.choices import Room, choices
from bigchem.plan.speed.step_time import Assumptions


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_fastest_row_that_got_through_is_written(testbed: Bed, small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", small_data, "mine", train={"steps": 100})
    (tmp_path / "mine.toml").write_text(toml.dump(config))
    profile = (
        'executor = "slurm"\npartition = "test"\nnodes = 1\ntasks_per_node = 2\ncpus_per_task = 1\ntime_min = 60\n'
    )
    profile += '[env]\nOMP_NUM_THREADS = "1"\nGLOO_SOCKET_IFNAME = "lo"\n'
    (tmp_path / "bed.toml").write_text(profile)
    planned, cluster = from_config.planned(str(tmp_path / "mine.toml"), (), 2), from_config.cluster("h100", 2, 1, None)
    tried = best_rows(choices(planned.work, planned.tables, [600], cluster, Room(80e9), Assumptions()))
    checkpoints = short_run(tried[0], planned).run_dir / "checkpoints"
    checkpoints.parent.mkdir()
    checkpoints.touch()  # stands for a row that runs out of memory
    words = ["mine.toml", "--tune", "bed.toml", "--micro-tokens", "600", "--write", "best.json", "--json"]

    def call() -> dict[str, object]:
        command = [sys.executable, "-m", "bigchem", "plan", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ), check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    rows = call()["rows"]
    assert isinstance(rows, list)
    assert len(rows) == 4
    assert len({owners.job_of(Path(row["run"])).partition("_")[0] for row in rows}) == 1
    speeds = [row["tokens_per_s_per_gpu"] for row in rows]
    assert speeds[-1] is None
    assert rows[-1]["run"] == str(checkpoints.parent)
    assert "File exists" in rows[-1]["reason"]
    assert speeds[:-1] == sorted(speeds[:-1], reverse=True)
    assert min(speeds[:-1]) > 0
    best = toml.load(RunConfig, Path(rows[0]["run"]) / "config.toml")
    assert len(losses(best)) == best.train.steps == 20
    written = json.loads((tmp_path / "best.json").read_text())["zero_optimization"]
    assert written == ds_config_for(best, 2)["zero_optimization"]
    checkpoints.unlink()
    again = call()["rows"]  # only what is missing is run
    assert isinstance(again, list)
    assert all(row["tokens_per_s_per_gpu"] for row in again)
    assert {row["run"]: row["tokens_per_s_per_gpu"] for row in again if row["run"] != rows[-1]["run"]} == {
        row["run"]: row["tokens_per_s_per_gpu"] for row in rows[:-1]
    }
