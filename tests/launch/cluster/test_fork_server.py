"""Jobs on this machine that are forked from a server: they train, resume and are cancelled as others are."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import config_of

from bigchem.launch.cancel import cancel
from bigchem.launch.cluster.fork_server import ForkServers
from bigchem.launch.cluster.profile import load_profile
from bigchem.launch.submit import submit, wait
from bigchem.run.state import read_state

LOCAL = load_profile("local")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_runs_of_a_server_train_from_their_own_snapshot(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "run", train={"steps": 3})
    with ForkServers() as servers:
        submitted = submit(config, LOCAL.model_copy(update={"tasks_per_node": 1}), servers=servers)
        ((server, _),) = servers._servers.values()
        assert int(submitted.job.job_id) in children(server.pid)
        (snapshot,) = (config.run_dir / "code").iterdir()
        assert f"PYTHONPATH={snapshot}" in Path(f"/proc/{server.pid}/environ").read_text().split("\0")
        assert wait(submitted, lambda row: None).state == "trained"
    assert server.returncode == 0


@pytest.mark.thorough
def test_a_forked_run_is_started_again_after_a_signal_and_cancelled(small_data: Path, tmp_path: Path) -> None:
    sections = {"train": {"steps": 100}, "checkpoint": {"every": 1000}}
    first = config_of(tmp_path, small_data, "first", **sections)
    second = config_of(tmp_path, small_data, "second", train={"steps": 10**6}, checkpoint={"every": 10**6})
    with ForkServers() as servers:
        submitted = submit(first, LOCAL, servers=servers)
        wait_until(lambda: read_state(first.run_dir).get("step", 0) >= 1)
        ranks = children(int(submitted.job.job_id))
        assert len(ranks) == 2
        for rank in ranks:
            os.kill(rank, signal.SIGUSR2)
        status = wait(submitted, lambda row: None)
        assert (status.state, status.step, status.restarts) == ("trained", 100, 1)
        submit(second, LOCAL, servers=servers)
        assert len(servers._servers) == 1
        wait_until(lambda: read_state(second.run_dir).get("step", 0) >= 1)
        cancel(second.run_dir)
        wait_until(lambda: read_state(second.run_dir)["state"] == "stopped")
