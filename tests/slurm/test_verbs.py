"""submit, status, logs, cancel and resume on a real Slurm: one run of two nodes, stopped twice and finished."""

from __future__ import annotations

import io
import os
import signal
from collections import Counter
from operator import itemgetter
from pathlib import Path

import pytest
from runs import config_of
from waiting import until_run

from bigchem.base.errors import UserError
from bigchem.launch.cancel import cancel
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.runs import logs
from bigchem.launch.runs.status import run_status
from bigchem.launch.slurm import squeue
from bigchem.launch.slurm.testbed.bed import Bed
from bigchem.launch.submit import resume, submit

PROFILE = load_profile("testbed").model_copy(update={"tasks_per_node": 1})


@pytest.mark.slow
def test_a_run_is_submitted_seen_cancelled_and_resumed(
    testbed: Bed, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, small_data, "seen", train={"steps": 3000}, checkpoint={"every": 5000})
    run = config.run_dir
    submit(config, PROFILE)
    status = until_run(run, lambda row: row.state == "running" and row.step >= 3)
    assert (status.active, status.nodes, status.restarts) == (True, "node[1-2]", 0)
    assert f"already running as job {status.job}" in submit(config, PROFILE).note
    with_controller_stopped(testbed, run, monkeypatch)
    assert "told to save and stop" in cancel(run)
    out = io.BytesIO()
    logs.show(run, out, follow=True)  # returns when the run is over
    assert b"SIGINT: saved" in out.getvalue()
    merged = io.BytesIO()
    logs.show(run, merged, rank=None, lines=10**6)
    heads = [line.split()[:2] for line in merged.getvalue().decode().splitlines()]
    lines = {str(n): (run / "logs" / f"rank{n}.log").read_text().count("\n") for n in range(PROFILE.world_size)}
    assert Counter(rank for _, rank in heads) == Counter(lines)
    assert heads == sorted(heads, key=itemgetter(0))
    status = until_run(run, lambda row: row.active is False)
    assert (status.state, status.checkpoint) == ("cancelled", f"step_{status.step:08d}")
    # A job that waits for its success (--after) does not start.
    shown = testbed.call("scontrol", "show", "job", str(status.job))
    assert "ExitCode=3:0" in shown, [word for word in shown.split() if "Code" in word or "State" in word]
    held = PROFILE.model_copy(update={"sbatch": {"hold": True}})
    resumed = resume(run, held, [f"train.steps={status.step + 3}"])
    assert resumed.job is not None
    waiting = until_run(run, lambda row: row.state == "queued")
    assert waiting.reason == "JobHeldUser"
    assert "was terminated" in cancel(run)  # it has nothing to save
    assert until_run(run, lambda row: row.active is False).state == "cancelled"
    resume(run, PROFILE)
    assert until_run(run, lambda row: row.active is False).state == "trained"
    assert (run / "logs" / "rank0.log").read_text().count("from step") == 1


def with_controller_stopped(bed: Bed, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then status reports what the folder says and how old that is; nothing is submitted or cancelled."""
    pid = bed._running("slurmctld")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as quicker:
            quicker.setattr(squeue, "TIMEOUT_S", 1.0)
            status = run_status(run)
            assert (status.state, status.active) == ("running", None)
            assert "squeue has not answered for 1 s" in str(status.reason)
            assert status.state_age_s is not None
            with pytest.raises(UserError, match="cannot reach job"):
                cancel(run)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_partition_that_is_not_there_is_told_in_slurms_words(testbed: Bed, small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "nowhere")
    with pytest.raises(UserError, match="Invalid partition name specified"):
        submit(config, ClusterProfile(executor="slurm", partition="gpuu"))
    assert run_status(config.run_dir).state == "prepared"
    assert (
        "submitted as job"
        in submit(config, ClusterProfile(executor="slurm", partition="test", sbatch={"hold": True})).note
    )
    assert "was terminated" in cancel(config.run_dir)
