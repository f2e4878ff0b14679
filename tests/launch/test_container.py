"""A whole program in a restarted container: its processes have the same pids as before."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import config_of, losses

from bigchem.base import toml
from bigchem.config import RunConfig
from bigchem.launch.runs import history
from bigchem.launch.runs.status import run_status
from bigchem.run import ownership
from bigchem.train.logging import ledger

INSIDE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A process namespace stands in for a container."""


def start(config: RunConfig, folder: Path) -> subprocess.Popen[bytes]:
    (folder / f"{config.name}.toml").write_text(toml.dump(config))
    words = [*INSIDE, sys.executable, "-m", "bigchem", "train", str(folder / f"{config.name}.toml")]
    with (folder / "out.txt").open("a") as out:
        return subprocess.Popen(words, stdout=out, stderr=out)


@pytest.mark.slow
def test_the_same_command_goes_on_after_a_container_restart_as_if_nothing_had_been(
    small_data: Path, tmp_path: Path
) -> None:
    if subprocess.run([*INSIDE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    calm, config = (
        config_of(tmp_path / "runs", small_data, name, train={"steps": 60, "ledger": True}, checkpoint={"every": 5})
        for name in ("calm", "restarted")
    )
    assert start(calm, tmp_path).wait(timeout=300) == 0
    container = start(config, tmp_path)
    deadline = time.monotonic() + 300
    while run_status(config.run_dir).step < 12:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert getattr(ownership.read(config.run_dir), "job", None) == "1"
    second = start(config, tmp_path)
    assert second.wait(timeout=300) == 2
    assert "the run is running as process 1 on" in (tmp_path / "out.txt").read_text()
    killed, done = time.time(), run_status(config.run_dir).step
    container.kill()
    container.wait(timeout=60)
    assert start(config, tmp_path).wait(timeout=300) == 0
    rows = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    again = next(row["time"] for row in rows if row["time"] > killed and row["step"] > 1)
    lost = done - history.read(config.run_dir)[-1].from_step
    print(f"container restart: training again after {again - killed:.1f} s, {lost} steps lost")
    assert run_status(config.run_dir).state == "trained"
    assert [row.end for row in history.read(config.run_dir)] == ["vanished", "trained"]
    assert ledger.read(config.run_dir) == ledger.read(calm.run_dir)
    assert losses(config) == pytest.approx(losses(calm), rel=1e-5)
