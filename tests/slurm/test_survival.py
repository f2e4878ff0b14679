"""Runs on a real Slurm that something happens to: each goes on by itself, and ends as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from runs import config_of, losses

from bigchem.config import RunConfig
from bigchem.launch import elastic, history
from bigchem.launch.cancel import cancel
from bigchem.launch.cluster import ClusterProfile, load_profile
from bigchem.launch.status import run_status
from bigchem.launch.submit import submit, wait
from bigchem.train import ledger
from bigchem.train.state import read_state
from slurm.testbed.bed import Bed

TIMEOUT = 240
EVERY = 5
"""Steps between checkpoints."""


@dataclass(frozen=True)
class Survived:
    """A disruption. own_s: from it to the next step, without what Slurm let the job wait. lost: steps done twice."""

    what: str
    own_s: float
    slurm_s: float
    lost: int

    def __str__(self) -> str:
        took = f"training again after {self.own_s:.1f} s and Slurm's {self.slurm_s:.1f} s"
        return f"{self.what}: {took}, {self.lost} steps lost"


def run_of(small_data: Path, tmp_path: Path, name: str, steps: int = 40) -> RunConfig:
    """A run whose messages to people go into a file: see `messages`."""
    return config_of(
        *(tmp_path / "runs", small_data, name),
        notify={"command": ["sh", "-c", f"cat >>'{tmp_path}/told.jsonl'; echo >>'{tmp_path}/told.jsonl'"]},
        train={"steps": steps, "ledger": True},
        checkpoint={"every": EVERY, "keep": 2},
        data={"global_tokens": 3000},
    )


def messages(tmp_path: Path) -> list[tuple[str, str]]:
    """Event and state of each message that was sent."""
    file = tmp_path / "told.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [(row["event"], row["state"]) for row in rows]


def profile_of(**fields: Any) -> ClusterProfile:
    return ClusterProfile.model_validate({**load_profile("testbed").model_dump(), **fields})


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def steps_of(config: RunConfig) -> list[tuple[int, float]]:
    """Number and time of each step that metrics.jsonl holds."""
    file = config.run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.is_file() else []
    return [(row["step"], row["time"]) for row in rows]


def opened(config: RunConfig) -> dict[str, Any]:
    """The attempt that has begun and not ended."""
    try:
        row: dict[str, Any] = json.loads((config.run_dir / "attempt.json").read_text())
    except FileNotFoundError:
        return {"attempt": 0, "time": 0.0}
    return row


def trains(config: RunConfig, attempt: int, step: int) -> None:
    """Waits until the attempt of that number trains, and is past a step."""

    def true() -> bool:
        begun = opened(config)
        return begun["attempt"] == attempt and any(n >= step and t > begun["time"] for n, t in steps_of(config))

    until(true, f"attempt {attempt} does not train: {run_status(config.run_dir)}")


def rank_pid(config: RunConfig, rank: int) -> int | None:
    """The process of a rank; node and rank are in its environment."""
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            if b"submitit.core._submit" not in words or f"{config.run_dir}/submitit/%j".encode() not in words:
                continue
            if words[0].endswith(b"srun"):  # it has the rank's words, and the batch script's SLURM_PROCID=0
                continue
            if f"SLURM_PROCID={rank}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    return None


def kill_rank(config: RunConfig, rank: int) -> None:
    until(lambda: rank_pid(config, rank), f"no process of rank {rank}")
    os.kill(int(rank_pid(config, rank) or 0), signal.SIGKILL)


def survived(bed: Bed, config: RunConfig, attempt: int, what: str, disrupt: Callable[[], object]) -> Survived:
    """Disrupts attempt number `attempt` in the middle, and waits until the next one trains."""
    newest = history.read(config.run_dir)
    begun = newest[-1].to_step if newest else 0
    trains(config, attempt, begun + EVERY + 3)
    at = time.time()
    disrupt()
    trains(config, attempt + 1, 1)
    row = history.read(config.run_dir)[-1]
    now = opened(config)
    again = next(t for _, t in steps_of(config) if t > now["time"])
    started = bed.call("squeue", "--noheader", "--format=%S", "--jobs", now["job"]).strip()
    slurm_s = max(0.0, time.mktime(time.strptime(started, "%Y-%m-%dT%H:%M:%S")) - (row.time + row.seconds))
    return Survived(what, again - at - slurm_s, slurm_s, row.to_step - now["from_step"])


@pytest.fixture(scope="session")
def uninterrupted(slurm_bed: Bed, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The run that nothing happens to: one process, as neither ledger nor loss depend on how many there are."""
    config = run_of(small_data, tmp_path_factory.mktemp("calm"), "calm")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in slurm_bed.environment().items():
            patch.setenv(name, value)
        assert wait(submit(config, profile_of(nodes=1, tasks_per_node=1)), lambda row: None).state == "trained"
    return config


def assert_same(config: RunConfig, calm: RunConfig) -> None:
    """Ledger and loss are those of the run that nothing happened to."""
    assert run_status(config.run_dir).state == "trained"
    assert ledger.read(config.run_dir) == ledger.read(calm.run_dir)
    assert losses(config) == pytest.approx(losses(calm), rel=1e-4)


def test_a_run_outlives_a_signal_a_killed_rank_and_a_preemption(
    testbed: Bed, small_data: Path, tmp_path: Path, uninterrupted: RunConfig
) -> None:
    config = run_of(small_data, tmp_path, "shaken")
    submitted = submit(config, profile_of())
    job = str(submitted.job.job_id)

    def preempt() -> None:
        testbed.call("srun", "-p", "high", "-N2", "-n8", "true", timeout_s=60)

    told = [
        survived(testbed, config, 1, "scancel --signal=USR2", lambda: testbed.call("scancel", "--signal=USR2", job)),
        survived(testbed, config, 2, "SIGKILL of rank 3", lambda: kill_rank(config, 3)),
        survived(testbed, config, 3, "preemption by another partition", preempt),
    ]
    wait(submitted, lambda row: None)
    print(*told, sep="\n")
    assert_same(config, uninterrupted)
    assert [row.end for row in history.read(config.run_dir)] == ["preempted", "lost rank", "preempted", "trained"]
    assert [row.failed_nodes for row in history.read(config.run_dir)] == ["", "node2", "", ""]
    assert told[0].lost == told[2].lost == 0
    assert 0 < told[1].lost < EVERY + 1
    until(lambda: messages(tmp_path), "nobody is told of its end")
    assert messages(tmp_path) == [("end", "trained")]  # and of none of its requeues
    status = run_status(config.run_dir)
    trained_s = json.loads((config.run_dir / "metrics.jsonl").read_text().splitlines()[-1])["training_s"]
    assert status.efficiency == pytest.approx(trained_s / status.seconds, abs=0.01)
    assert 0 < status.efficiency < 1
    assert status.hours == pytest.approx(4 * status.seconds / 3600, rel=0.01)


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
    until(lambda: messages(tmp_path), "nobody is told of its failure")
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
    until(lambda: messages(tmp_path) == [("failure", "failed")], "nobody is told of its failure")


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
        told = [
            survived(testbed, config, 1, "kill -9 of the first node", power_cut),
            survived(testbed, config, 2, "kill -9 of the second node", shrink),
        ]
        wait(jobs[-1], lambda row: None)
    finally:
        testbed.start_node("node2")
        until(lambda: "idle 2" in testbed.call("sinfo", "-h", "-p", "test", "-o", "%T %D"), "node2 does not come back")
    print(*told, sep="\n")
    assert_same(config, uninterrupted)
    assert all(one.lost < EVERY + 1 for one in told)
    rows = history.read(config.run_dir)
    assert [(row.end, row.ranks, row.nodes) for row in rows] == [
        *(("lost rank", 4, "node[1-2]"), ("lost rank", 4, "node[1-2]"), ("trained", 2, "node1"))
    ]


@pytest.mark.slow
def test_a_run_outlives_its_time_limit(testbed: Bed, small_data: Path, tmp_path: Path) -> None:
    """A limit of one minute, and more work than fits into it. Slurm's signal may come a minute before it is due: every
    attempt is told to make way, by that or by its clock."""
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
        told = survived(testbed, config, 1, "preemption with SIGTERM", lambda: testbed.call(*preempt, timeout_s=60))
        wait(submitted, lambda row: None)
    finally:
        conf.write_text(before)
        testbed.call("scontrol", "reconfigure")
    print(told)
    assert_same(config, uninterrupted)
    assert told.lost == 0
    assert "SIGTERM" in history.read(config.run_dir)[0].why


@pytest.mark.slow
def test_a_run_whose_node_stays_away_goes_on_with_fewer_by_itself(
    testbed: Bed, small_data: Path, tmp_path: Path, uninterrupted: RunConfig
) -> None:
    """Nobody intervenes: the job waits a minute for two nodes, then its watcher lets it start on one; and the watcher
    is gone when the run is over."""
    config = run_of(small_data, tmp_path, "shrunk")
    submitted = submit(config, profile_of(nodes=1, nodes_max=2, elastic_after_min=1))
    watcher = elastic.read(config.run_dir)
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
    told = [json.loads(line) for line in (config.run_dir / "events.jsonl").read_text().splitlines()]
    assert "waited for 2 nodes for 1 min" in next(row["detail"] for row in told if row["kind"] == "nodes")
    assert elastic.read(config.run_dir) is None


@pytest.mark.slow
def test_a_node_that_failed_two_attempts_is_left_out_of_the_third(
    testbed: Bed, small_data: Path, tmp_path: Path, uninterrupted: RunConfig
) -> None:
    """A rank that is killed twice on node1; node2 is left for the job."""
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
    told = [json.loads(line) for line in (config.run_dir / "events.jsonl").read_text().splitlines()]
    assert [row["detail"] for row in told if row["kind"] == "bad nodes"] == ["node1 failed 2 attempts: it is excluded"]


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
