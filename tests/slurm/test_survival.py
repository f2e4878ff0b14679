"""Faults on a real Slurm: each run recovers by itself and ends as if undisturbed."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
from disruptions import EVERY, assert_same, kill_rank, messages, opened, profile_of, run_of, steps_of, survived, trains
from runs import config_of
from waiting import until

from bigchem.config import RunConfig
from bigchem.launch.cancel import cancel
from bigchem.launch.runs import history
from bigchem.launch.runs.status import run_status
from bigchem.launch.slurm.testbed.bed import Bed
from bigchem.launch.submit import submit, wait
from bigchem.run.state import read_state


@pytest.mark.parametrize(
    ("tasks_per_node", "preempted"), [(1, False), pytest.param(2, True, marks=pytest.mark.thorough)]
)
def test_a_run_outlives_a_signal_a_killed_rank_and_a_preemption(
    testbed: Bed, small_data: Path, tmp_path: Path, uninterrupted: RunConfig, tasks_per_node: int, preempted: bool
) -> None:
    """On two nodes; without the preemption, which comes as a signal too, on one rank each."""
    config, ranks = run_of(small_data, tmp_path, "shaken"), 2 * tasks_per_node
    submitted = submit(config, profile_of(tasks_per_node=tasks_per_node))
    job = str(submitted.job.job_id)

    def preempt() -> None:
        testbed.call("srun", "-p", "high", "-N2", "-n8", "true", timeout_s=60)

    survivals = [
        survived(testbed, config, 1, "scancel --signal=USR2", lambda: testbed.call("scancel", "--signal=USR2", job)),
        survived(testbed, config, 2, "SIGKILL of the last rank", lambda: kill_rank(config, ranks - 1)),
    ]
    if preempted:
        survivals += [survived(testbed, config, 3, "preemption by another partition", preempt)]
    wait(submitted, lambda row: None)
    print(*survivals, sep="\n")
    assert_same(config, uninterrupted)
    assert [row.end for row in history.read(config.run_dir)] == [
        *("preempted", "lost rank", *["preempted"] * preempted, "trained")
    ]
    assert [row.failed_nodes for row in history.read(config.run_dir)] == ["", "node2", *[""] * len(survivals[1:])]
    assert all(survivals[number].lost == 0 for number in range(0, len(survivals), 2))
    assert 0 < survivals[1].lost < EVERY + 1
    until(lambda: messages(tmp_path), "no notification of its end")
    assert messages(tmp_path) == [("end", "trained")]  # and of none of its requeues
    status = run_status(config.run_dir)
    trained_s = json.loads((config.run_dir / "metrics.jsonl").read_text().splitlines()[-1])["training_s"]
    assert status.efficiency == pytest.approx(trained_s / status.seconds, abs=0.01)
    assert 0 < status.efficiency < 1
    assert status.hours == pytest.approx(ranks * status.seconds / 3600, rel=0.01)


@pytest.mark.slow
def test_a_job_that_dies_at_the_same_step_three_times_is_not_started_again(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    config = run_of(small_data, tmp_path, "hopeless")
    submitted = submit(config, profile_of(nodes=1, tasks_per_node=1))
    for attempt in (1, 2, 3):
        until(lambda n=attempt: opened(config)["attempt"] == n, f"attempt {attempt} does not begin")
        kill_rank(config, 0)
    until(lambda: read_state(config.run_dir)["state"] == "failed", "it does not fail")
    until(lambda: not run_status(config.run_dir).active, "its job does not end")
    assert "3 attempts in a row ended after step 0 (killed, killed, killed)" in str(run_status(config.run_dir).reason)
    until(lambda: messages(tmp_path), "no notification of its failure")
    assert messages(tmp_path) == [("failure", "failed")]
    assert f"JobId={submitted.job.job_id}" in testbed.call("scontrol", "show", "job", str(submitted.job.job_id))


@pytest.mark.slow
def test_a_job_that_slurm_suspends_for_longer_than_a_hang_goes_on(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    config = config_of(
        *(tmp_path / "runs", small_data, "suspended"),
        train={"steps": 60},
        health={"hang_s": 8.0},
        checkpoint={"every": 5},
    )
    submitted = submit(config, profile_of(nodes=1, tasks_per_node=2))
    job = str(submitted.job.job_id)
    trains(config, 1, 3)
    before = testbed.call("squeue", "--noheader", "--format=%e", "--jobs", job).strip()
    testbed.call("scontrol", "suspend", job)
    stood = len(steps_of(config))
    time.sleep(20)
    assert len(steps_of(config)) <= stood + 1
    testbed.call("scontrol", "resume", job)
    print(f"the job was to end at {before}, now at", testbed.call("squeue", "--noheader", "--format=%e", "--jobs", job))
    assert wait(submitted, lambda row: None).state == "trained"
    assert [row.end for row in history.read(config.run_dir)] == ["trained"]


@pytest.mark.slow
def test_a_cancelled_job_saves_and_says_so(testbed: Bed, small_data: Path, tmp_path: Path) -> None:
    config = run_of(small_data, tmp_path, "cancelled", steps=10**6)
    submitted = submit(config, profile_of(nodes=1, tasks_per_node=1))
    trains(config, 1, 3)
    testbed.call("scancel", str(submitted.job.job_id))
    until(lambda: not run_status(config.run_dir).active, "its job does not end")
    status = run_status(config.run_dir)
    assert status.state == "stopped"
    assert "cancelled" in str(status.reason)
    assert status.checkpoint == f"step_{status.step:08d}"
    assert history.read(config.run_dir)[-1].end == "stopped"


def test_a_job_whose_srun_fails_before_any_rank_begins_is_not_started_again_and_status_has_its_line(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    config = run_of(small_data, tmp_path, "unlaunched")
    submit(config, profile_of(nodes=1, tasks_per_node=1, srun_args=("--nodelist=node99",)))
    until(lambda: run_status(config.run_dir).state == "failed", f"it does not fail: {run_status(config.run_dir)}")
    assert str(run_status(config.run_dir).reason).startswith("srun: error: ")
    assert "Requested node configuration is not available" in str(run_status(config.run_dir).reason)
    until(lambda: run_status(config.run_dir).active is False, "its job does not end")
    assert [row.end for row in history.read(config.run_dir)] == ["not launched"]
    until(lambda: messages(tmp_path) == [("failure", "failed")], "no notification of its failure")


def test_a_job_that_waits_says_when_it_is_expected_to_start(testbed: Bed, small_data: Path, tmp_path: Path) -> None:
    config = run_of(small_data, tmp_path, "later")
    submit(config, profile_of(nodes=1, tasks_per_node=1, sbatch={"begin": "now+3600"}))
    status = run_status(config.run_dir)
    assert (status.state, status.reason) == ("queued", "BeginTime")
    assert status.starts_at == pytest.approx(time.time() + 3600, abs=60)
    cancel(config.run_dir)


@pytest.mark.parametrize("why", ["PartitionDown", "JobHeldUser"])
def test_a_job_that_does_not_start_says_why(testbed: Bed, small_data: Path, tmp_path: Path, why: str) -> None:
    config = run_of(small_data, tmp_path, "waiting")
    testbed.call("scontrol", "update", "partition=test", "state=DOWN")
    try:
        submitted = submit(config, profile_of(nodes=1, tasks_per_node=1))
        if why == "JobHeldUser":
            testbed.call("scontrol", "uhold", str(submitted.job.job_id))
        until(lambda: why in str(run_status(config.run_dir).reason), f"status does not say {why}")
        assert run_status(config.run_dir).state == "queued"
    finally:
        testbed.call("scancel", "-p", "test", "-t", "PENDING")
        testbed.call("scontrol", "update", "partition=test", "state=UP")


@pytest.mark.slow
def test_a_run_outlives_its_nodes_and_goes_on_with_fewer(
    testbed: Bed, small_data: Path, tmp_path: Path, uninterrupted: RunConfig
) -> None:
    """First the node of the batch script, which comes back; then the other one, which does not: the run is
    submitted again for one node."""
    config = run_of(small_data, tmp_path, "torn")
    jobs = [submit(config, profile_of())]
    job = str(jobs[0].job.job_id)

    def power_cut() -> None:
        testbed.kill_node("node1")
        testbed.start_node("node1")

    def shrink() -> None:
        testbed.kill_node("node2")
        until(lambda: "PENDING" in testbed.call("squeue", "-h", "-o", "%T", "-j", job), "node2 is not missed")
        testbed.call("scancel", job)
        until(lambda: not run_status(config.run_dir).active, "its job does not end")
        jobs.append(submit(config, profile_of(nodes=1)))

    try:
        survivals = [
            survived(testbed, config, 1, "kill -9 of the first node", power_cut),
            survived(testbed, config, 2, "kill -9 of the second node", shrink),
        ]
        wait(jobs[-1], lambda row: None)
    finally:
        testbed.start_node("node2")
        until(lambda: "idle 2" in testbed.call("sinfo", "-h", "-p", "test", "-o", "%T %D"), "node2 does not come back")
    print(*survivals, sep="\n")
    assert_same(config, uninterrupted)
    assert all(one.lost < EVERY + 1 for one in survivals)
    rows = history.read(config.run_dir)
    assert [(row.end, row.ranks, row.nodes) for row in rows] == [
        *(("lost rank", 4, "node[1-2]"), ("lost rank", 4, "node[1-2]"), ("trained", 2, "node1"))
    ]


@pytest.mark.slow
def test_a_run_outlives_its_time_limit(testbed: Bed, small_data: Path, tmp_path: Path) -> None:
    """A limit of one minute, and more work than fits into it. Slurm's signal may come a minute before it is due: every
    attempt is told to stop, by that or by its time limit."""
    config, calm = (run_of(small_data, tmp_path, name, steps=450) for name in ("long", "calm"))
    beside = submit(calm, profile_of(nodes=1, tasks_per_node=1))
    limited = submit(config, profile_of(nodes=1, tasks_per_node=1, time_min=1, signal_delay_s=10))
    assert {wait(submitted, lambda row: None).step for submitted in (limited, beside)} == {450}
    assert_same(config, calm)
    ended = history.read(config.run_dir)
    assert [row.end for row in ended[:-1]] == ["time limit"] * (len(ended) - 1)
    assert len(ended) > 1
    assert sum(row.seconds for row in ended) > 60
    assert [b.from_step - a.to_step for a, b in pairwise(ended)] == [0] * (len(ended) - 1)


@pytest.mark.slow
def test_a_preemption_that_sends_sigterm_is_no_persons_stop(
    testbed: Bed, small_data: Path, tmp_path: Path, uninterrupted: RunConfig
) -> None:
    """As on clusters without preempt_send_user_signal."""
    conf = testbed.folder / "slurm.conf"
    before = conf.read_text()
    conf.write_text(before.replace("SlurmctldParameters=preempt_send_user_signal\n", ""))
    try:
        testbed.call("scontrol", "reconfigure")
        config = run_of(small_data, tmp_path, "termed")
        submitted = submit(config, profile_of())
        preempt = ["srun", "-p", "high", "-N2", "-n8", "true"]
        survival = survived(testbed, config, 1, "preemption with SIGTERM", lambda: testbed.call(*preempt, timeout_s=60))
        wait(submitted, lambda row: None)
    finally:
        conf.write_text(before)
        testbed.call("scontrol", "reconfigure")
    print(survival)
    assert_same(config, uninterrupted)
    assert survival.lost == 0
    assert "SIGTERM" in history.read(config.run_dir)[0].why
