"""Runs that continue by themselves on other nodes, on a real Slurm: on fewer, or without a failing node."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from disruptions import EVERY, assert_same, kill_rank, profile_of, run_of, trains
from waiting import until

from bigchem.config import RunConfig
from bigchem.launch import elastic_restart
from bigchem.launch.cancel import cancel
from bigchem.launch.runs import history
from bigchem.launch.slurm.testbed.bed import Bed
from bigchem.launch.submit import submit, wait
from bigchem.run.state import read_state


@pytest.mark.slow
def test_a_run_whose_node_stays_away_goes_on_with_fewer_by_itself(
    testbed: Bed, small_data: Path, tmp_path: Path, uninterrupted: RunConfig
) -> None:
    """Nobody intervenes: the job waits a minute for two nodes, then its watcher lets it start on one; and the watcher
    is gone when the run is over."""
    config = run_of(small_data, tmp_path, "shrunk")
    submitted = submit(config, profile_of(nodes=1, nodes_max=2, elastic_after_min=1))
    watcher = elastic_restart.read(config.run_dir)
    assert watcher is not None
    assert watcher.job == str(submitted.job.job_id)
    try:
        trains(config, 1, EVERY + 3)
        at = time.time()
        testbed.kill_node("node2")
        assert wait(submitted, lambda row: print(f"{time.time() - at:.0f} s: {row.state}")).state == "trained"
        until(lambda: not testbed.call("squeue", "-h", "-o", "%i %T").strip(), "a job is left behind")
    finally:
        testbed.start_node("node2")
        until(lambda: "idle 2" in testbed.call("sinfo", "-h", "-p", "test", "-o", "%T %D"), "node2 does not come back")
    assert_same(config, uninterrupted)
    assert [(row.job, row.ranks, row.nodes, row.failed_nodes) for row in history.read(config.run_dir)] == [
        *((watcher.job, 4, "node[1-2]", "node2"), (watcher.job, 2, "node1", ""))
    ]
    events = [json.loads(line) for line in (config.run_dir / "events.jsonl").read_text().splitlines()]
    assert "waited for 2 nodes for 1 min" in next(row["detail"] for row in events if row["kind"] == "nodes")
    assert elastic_restart.read(config.run_dir) is None


@pytest.mark.slow
def test_a_node_that_failed_two_attempts_is_left_out_of_the_third(
    testbed: Bed, small_data: Path, tmp_path: Path, uninterrupted: RunConfig
) -> None:
    """A rank is killed twice on node1; node2 is left for the job."""
    config = run_of(small_data, tmp_path, "unlucky")
    submitted = submit(config, profile_of(nodes=1, tasks_per_node=1))
    for attempt, step in ((1, 1), (2, EVERY + 2)):
        trains(config, attempt, step)
        kill_rank(config, 0)
    until(lambda: "node1 failed 2 attempts: it is excluded" in str(read_state(config.run_dir).get("reason")), "no word")
    job = str(submitted.job.job_id)
    until(lambda: "ExcNodeList=node1" in testbed.call("scontrol", "show", "job", job), "node1 is not excluded")
    wait(submitted, lambda row: None)
    assert_same(config, uninterrupted)
    assert [(row.nodes, row.end, row.failed_nodes) for row in history.read(config.run_dir)] == [
        *(("node1", "killed", "node1"), ("node1", "killed", "node1"), ("node2", "trained", ""))
    ]
    events = [json.loads(line) for line in (config.run_dir / "events.jsonl").read_text().splitlines()]
    assert [row["detail"] for row in events if row["kind"] == "bad nodes"] == [
        "node1 failed 2 attempts: it is excluded"
    ]


def test_cancelling_a_run_that_waits_takes_its_watcher_along(testbed: Bed, small_data: Path, tmp_path: Path) -> None:
    config = run_of(small_data, tmp_path, "given-up")
    testbed.call("scontrol", "update", "partition=test", "state=DOWN")
    try:
        submit(config, profile_of(nodes=1, nodes_max=2, elastic_after_min=1))
        queued = testbed.call("squeue", "-h", "-o", "%j").split()
        assert sorted(queued) == ["given-up", "given-up-elastic"]
        cancel(config.run_dir)
        assert not testbed.call("squeue", "-h", "-o", "%j").split()
    finally:
        testbed.call("scontrol", "update", "partition=test", "state=UP")
