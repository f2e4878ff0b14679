"""One owner for each run: two starters at once, reused pids, restarted containers, other clusters, requeued jobs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from owners import owned

from bigchem.base import file_lock
from bigchem.base.errors import UserError
from bigchem.launch.cancel import cancel, send
from bigchem.launch.runs import owner
from bigchem.launch.runs.status import run_status
from bigchem.launch.slurm import client, squeue
from bigchem.run import ownership
from bigchem.run.lifecycle import End, State, Writer
from bigchem.run.ownership import Claim, DisownedError, Owner, OwnershipWatch, Process
from bigchem.run.state import read_state, write_state

MINE, THEIRS = "mine", "theirs"
STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_CLUSTER_NAME": "green", "SLURM_RESTART_COUNT": "0"}
CLAIM = """
import os, sys, time
from pathlib import Path
from bigchem.base.errors import UserError
from bigchem.launch.runs import owner
until = float(sys.argv[2])
time.sleep(max(0.0, until - time.time() - 0.05))
while time.time() < until: pass
run_dir = Path(sys.argv[1])
try:
    with owner.start_lock(run_dir, "starts") as locked:
        owner.claim(run_dir, owner.of_this_process({}, 1), locked=locked)
        (run_dir / "config.toml").write_text("")
except UserError:
    sys.exit(2)
print("claimed", flush=True)
time.sleep(60)
"""


def take(run_dir: Path, env: dict[str, str] | None = None, **more: Any) -> Claim:
    me = replace(owner.of_this_process(env or {}, 1), **more)
    with owner.start_lock(run_dir, "starts") as locked:
        return owner.claim(run_dir, me, locked=locked)


def running(run_dir: Path) -> Path:
    run_dir.mkdir(exist_ok=True)
    (run_dir / "config.toml").write_text("")
    write_state(run_dir, State.RUNNING, step=3, steps=9)
    return run_dir


def starter(run_dir: Path, at: float = 0.0, *, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*launcher, sys.executable, "-c", CLAIM, str(run_dir), str(at)], stdout=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize("locked", [True, False], ids=["locks", "no locks"])
def test_of_two_that_start_in_the_same_instant_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """The file system without locks is a stand-in: Python's flock, which says that there are none."""
    if not locked:
        (tmp_path / "site").mkdir()
        none = "def flock(*a): raise OSError(errno.ENOLCK, 'No locks available')"
        (tmp_path / "site" / "sitecustomize.py").write_text(f"import errno, fcntl\n{none}\nfcntl.flock = flock\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    at = time.time() + 2.0
    both = [starter(tmp_path / "run", at) for _ in range(2)]
    try:
        deadline = time.monotonic() + 120
        while all(p.poll() is None for p in both) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert {p.poll() for p in both} == {None, 2}
    finally:
        for process in both:
            end(process)


def test_a_run_whose_process_lives_is_refused_and_one_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    run_dir = running(tmp_path / "run")
    process = starter(run_dir)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    with pytest.raises(UserError, match=rf"the run is running as process {process.pid}"):
        take(run_dir)
    assert run_status(run_dir).state == "running"
    end(process)
    assert run_status(run_dir).state == "lost"
    claim = take(run_dir)
    assert claim.holds()
    ownership.unlock_liveness(run_dir)


def test_a_reused_process_id_is_not_taken_for_the_run_and_never_signalled(tmp_path: Path) -> None:
    run_dir = running(tmp_path / "run")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        mine = Process.of(other.pid)
        earlier = replace(mine, started=mine.started - 1)
        owned(run_dir, str(other.pid), "here", process=earlier)
        assert run_status(run_dir).state == "lost"
        assert "nothing to cancel" in cancel(run_dir, now=True)
        assert not send(earlier, signal.SIGKILL)
        assert other.poll() is None
        assert send(mine, signal.SIGKILL)
        assert other.wait(timeout=10) == -signal.SIGKILL
    finally:
        other.kill()


def test_the_same_command_goes_on_after_its_container_was_restarted(tmp_path: Path) -> None:
    """Both times it is process 1 of its namespace, on a host of the same name. Namespaces from `unshare` stand in for
    containers."""
    inside = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    run_dir = running(tmp_path / "run")
    for _ in range(2):
        process = starter(run_dir, launcher=inside)
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        record = ownership.read(run_dir)
        assert record is not None
        assert record.job == "1"
        assert run_status(run_dir).active  # though no process 1 of this namespace is meant
        refused = starter(run_dir, launcher=inside)
        assert refused.wait(timeout=120) == 2
        end(process)
    assert run_status(run_dir).state == "lost"


@pytest.mark.parametrize(
    ("boot", "host", "lives"),
    [("another boot", platform.node(), False), ("another boot", "another-host", None), ("", "another-host", None)],
)
def test_a_process_of_another_machine_is_unknown_and_one_before_a_reboot_is_gone(
    tmp_path: Path, boot: str, host: str, lives: bool | None
) -> None:
    run_dir = running(tmp_path / "run")
    owned(run_dir, str(os.getpid()), "here", process=replace(Process.here(), boot=boot, host=host))
    assert run_status(run_dir).active is lives
    if lives is None:
        with pytest.raises(UserError, match=r"started on another-host: ask there(.|\n)*owner\.json"):
            take(run_dir)
        with pytest.raises(UserError, match="cannot reach process"):
            cancel(run_dir)


def queue_of(monkeypatch: pytest.MonkeyPatch, cluster: str, **jobs: squeue.Job) -> None:
    """A stand-in for Slurm: its jobs, and its cluster name."""
    known = {name[1:]: job for name, job in jobs.items()}
    monkeypatch.setattr(squeue, "ask", lambda asked: squeue.Queue({j: known[j] for j in asked if j in known}))
    monkeypatch.setattr(client, "cluster_name", lambda env=None: (env or {}).get("SLURM_CLUSTER_NAME", cluster))


def test_a_job_of_another_cluster_is_unknown_here_and_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = running(tmp_path / "run")
    owned(run_dir, "7", cluster="green")
    queue_of(monkeypatch, "blue")
    status = run_status(run_dir)
    assert (status.state, status.active) == ("running", None)
    assert "this machine talks to cluster blue: ask on green" in str(status.reason)
    with pytest.raises(UserError, match="cannot tell whether job 7 of cluster green still runs"):
        take(run_dir)
    queue_of(monkeypatch, "green")
    assert take(run_dir).holds()


def test_a_job_claims_what_was_submitted_for_it_and_again_when_it_is_requeued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = running(tmp_path / "run")
    owned(run_dir, "7", cluster="green", world_size=4, code="abc", output="/out")
    queue_of(monkeypatch, "green", _7=squeue.Job("RUNNING"))
    first = take(run_dir, STEP)
    record = ownership.read(run_dir)
    assert record is not None
    assert (record.executor, record.code, record.output, record.restart) == ("slurm", "abc", "/out", 0)
    second = take(run_dir, {**STEP, "SLURM_RESTART_COUNT": "1"})
    assert second.holds()
    assert not first.holds()  # its node lost contact with Slurm, and may come back
    for other in ({**STEP, "SLURM_JOB_ID": "8"}, {**STEP, "SLURM_CLUSTER_NAME": "blue"}):
        with pytest.raises(UserError):
            take(run_dir, other)
        assert not owner.of_job(run_dir, other).holds()
    assert owner.of_job(run_dir, STEP).holds()


def test_a_second_process_of_the_same_job_waits_for_the_end_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = running(tmp_path / "run")
    queue_of(monkeypatch, "green", _7=squeue.Job("RUNNING"))
    far = replace(Process.here(), host="gpu2", boot="another")
    owned(run_dir, "7", "here", cluster="green", launch="7.0", process=far)
    again = {**STEP, "SLURM_STEP_ID": "1"}
    for lives in (True, None):
        monkeypatch.setattr(client, "step_lives", lambda step, lives=lives: lives)
        with pytest.raises(UserError, match="the run is running as job 7 of cluster green"):
            take(run_dir, again)
    monkeypatch.setattr(client, "step_lives", lambda step: step != "7.0")
    assert take(run_dir, again).holds()
    with pytest.raises(UserError, match="the run is running"):  # this very process holds it
        take(run_dir, {**STEP, "SLURM_STEP_ID": "2"})
    ownership.unlock_liveness(run_dir)


def test_what_torchrun_starts_again_goes_on_and_a_run_that_was_released_is_free(tmp_path: Path) -> None:
    run_dir = running(tmp_path / "run")
    far = replace(Process.here(), host="gpu2", boot="another")
    owned(run_dir, "99", "here", launch="torchrun abc", process=far)
    with pytest.raises(UserError, match="started on gpu2"):
        take(run_dir, {"TORCHELASTIC_RUN_ID": "other"})
    claim = take(run_dir, {"TORCHELASTIC_RUN_ID": "abc", "TORCHELASTIC_RESTART_COUNT": "1"})
    with pytest.raises(UserError, match="the run is running as process"):
        take(run_dir)
    owner.release(claim)
    assert take(run_dir).holds()
    ownership.unlock_liveness(run_dir)


def test_an_attempt_that_lost_its_run_writes_nothing_and_says_to_whom(tmp_path: Path) -> None:
    run_dir = running(tmp_path / "run")
    owned(run_dir, "7", cluster="green", token=MINE)
    claim, lookout = Claim(run_dir, MINE), OwnershipWatch(Claim(run_dir, MINE))
    claim.check()
    assert not lookout.lost(10.0)
    owned(run_dir, "8", cluster="blue", token=THEIRS)
    assert not lookout.lost(11.0)  # it has just checked
    assert lookout.lost(12.5)
    with pytest.raises(DisownedError, match="taken over by job 8 of cluster blue"):
        claim.check()
    before = read_state(run_dir)
    assert not claim.end(Writer.RANK_0, End.STOPPED, "SIGTERM")
    assert read_state(run_dir) == before


@pytest.mark.parametrize(
    ("gone", "message"), [("folder", "the run folder was removed"), ("file", "owner record was removed")]
)
def test_an_attempt_whose_folder_was_removed_says_so_and_does_not_make_it_again(
    tmp_path: Path, gone: str, message: str
) -> None:
    run_dir = running(tmp_path / "run")
    owned(run_dir, "7", token=MINE)
    if gone == "folder":
        run_dir.rename(tmp_path / "removed")
    else:
        (run_dir / ownership.FILE).unlink()
    claim = Claim(run_dir, MINE)
    with pytest.raises(DisownedError, match=message):
        claim.check()
    assert not claim.end(Writer.RANK_0, End.STOPPED)
    assert run_dir.exists() == (gone == "file")


def test_a_record_comes_back_as_it_was_written_and_a_torn_one_is_refused(tmp_path: Path) -> None:
    assert owned(tmp_path, "7", cluster="green") == ownership.read(tmp_path)
    made = owned(tmp_path, str(os.getpid()), "here", released=5.0)
    assert ownership.read(tmp_path) == made
    (tmp_path / ownership.FILE).write_text(json.dumps({**asdict(made), "of a later version": 1}))
    assert ownership.read(tmp_path) == made
    for text in ('{"token": "x"', "[]", '{"token": "x"}'):
        (tmp_path / ownership.FILE).write_text(text)
        with pytest.raises(UserError, match="not an owner record"):
            ownership.read(tmp_path)


def test_a_copy_of_a_run_folder_has_no_owner_and_one_that_was_moved_keeps_it(tmp_path: Path) -> None:
    run_dir = running(tmp_path / "run")
    process = starter(run_dir)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    try:
        shutil.copytree(run_dir, tmp_path / "copy")
        assert run_status(tmp_path / "copy").active is False
        assert "nothing to cancel" in cancel(tmp_path / "copy", now=True)
        assert process.poll() is None
        run_dir.rename(tmp_path / "moved")
        assert run_status(tmp_path / "moved").active
    finally:
        end(process)


def test_a_process_in_the_shell_of_an_allocation_outlives_it_and_is_what_cancel_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = running(tmp_path / "run")
    queue_of(monkeypatch, "green")  # the allocation is over
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        owned(run_dir, "7", "here", cluster="green", process=Process.of(process.pid))
        status = run_status(run_dir)
        assert (status.active, status.job) == (True, "7")
        with pytest.raises(UserError, match="the run is running as job 7"):
            take(run_dir)
        assert "was terminated" in cancel(run_dir, now=True)
        assert process.wait(timeout=10) == -signal.SIGKILL
    finally:
        process.kill()


def test_a_living_run_is_not_taken_over_by_another_torchrun_of_the_same_id(tmp_path: Path) -> None:
    """torch's documentation gives every job --rdzv-id=100."""
    run_dir = running(tmp_path / "run")
    mine = {"TORCHELASTIC_RUN_ID": "100"}
    take(run_dir, mine)
    with pytest.raises(UserError, match="the run is running"):
        take(run_dir, {**mine, "TORCHELASTIC_RESTART_COUNT": "1"})
    ownership.unlock_liveness(run_dir)


def test_within_a_job_torchrun_may_move_rank_0_to_another_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = running(tmp_path / "run")
    queue_of(monkeypatch, "green", _7=squeue.Job("RUNNING"))
    far = replace(Process.here(), host="gpu2", boot="another")
    owned(run_dir, "7", "here", cluster="green", launch="7.0", process=far)
    with pytest.raises(UserError, match="the run is running"):
        take(run_dir, STEP)
    assert take(run_dir, {**STEP, "TORCHELASTIC_RESTART_COUNT": "1"}).holds()
    ownership.unlock_liveness(run_dir)


def test_a_step_of_an_array_bears_the_name_that_squeue_shows() -> None:
    task = {**STEP, "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
    assert owner.of_this_process(task, 1).launch == "5_3.0"


def test_a_released_run_may_go_on_at_another_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = running(tmp_path / "run")
    owned(run_dir, "7", cluster="green", released=5.0)
    queue_of(monkeypatch, "blue")
    assert take(run_dir).holds()
    ownership.unlock_liveness(run_dir)


def test_a_job_of_another_user_that_slurm_does_not_show_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = running(tmp_path / "run")
    owned(run_dir, "7", cluster="green", user="somebody")
    queue_of(monkeypatch, "green")
    monkeypatch.setattr(owner.os, "geteuid", lambda: 1000)
    status = run_status(run_dir)
    assert (status.active, "ask somebody" in str(status.reason)) == (None, True)


def test_a_job_that_an_older_version_submitted_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = running(tmp_path / "run")
    (run_dir / "submission.json").write_text('{"executor": "slurm", "job": "7", "host": "login", "time": 1.0}')
    queue_of(monkeypatch, "green", _7=squeue.Job("RUNNING"))
    assert run_status(run_dir).active
    with pytest.raises(UserError, match="the run is running as job 7"):
        take(run_dir)


def test_a_cancellation_is_meant_for_the_job_that_it_was_given_for(tmp_path: Path) -> None:
    here = owned(tmp_path, str(os.getpid()), "here", time=time.time())
    owner.mark_cancelled(tmp_path, here)
    assert owner.cancelled_by(tmp_path, here)
    later: list[Owner] = [replace(here, time=time.time() + 1), replace(here, job="8"), replace(here, cluster="blue")]
    assert [owner.cancelled_by(tmp_path, one) for one in later] == [None] * 3
    owner.unmark_cancelled(tmp_path)
    assert owner.cancelled_by(tmp_path, here) is None


def test_a_file_system_without_locks_is_said_and_the_record_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another starter, which wrote later, has won. It is a stand-in."""
    monkeypatch.setattr(owner, "SETTLE_S", 0.0)
    monkeypatch.setattr(owner.time, "sleep", lambda seconds: owned(tmp_path, "8", cluster="green"))
    with pytest.raises(DisownedError, match="taken over by job 8"):
        owner.claim(tmp_path, owner.of_this_process({}, 1), locked=False)
    assert not isinstance(file_lock.NoLocksError("x"), DisownedError)
