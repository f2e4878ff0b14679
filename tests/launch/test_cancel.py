"""Cancelling many runs. Their jobs are sleeping processes here; Slurm's are in tests/slurm."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from owners import owned

from bigchem.base.errors import UserError
from bigchem.launch.cancel import cancel_all, cancel_each
from bigchem.run.ownership import Process


def run_of(folder: Path, state: str = "running") -> Path:
    folder.mkdir()
    (folder / "config.toml").write_text("")
    (folder / "state.json").write_text(json.dumps({"state": state, "time": time.time()}))
    return folder


@pytest.fixture
def jobs() -> Iterator[list[subprocess.Popen[bytes]]]:
    found = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield found
    for job in found:
        job.kill()
        job.wait()


@pytest.mark.parametrize("now", [False, True])
def test_all_runs_of_a_sweep_that_are_on_their_way_are_cancelled(
    tmp_path: Path, jobs: list[subprocess.Popen[bytes]], now: bool
) -> None:
    done, never = run_of(tmp_path / "done", "finished"), tmp_path / "never"
    active = [run_of(tmp_path / name) for name in "ab"]
    for run, job in zip(active, jobs, strict=True):
        owned(run, str(job.pid), "here", time=time.time())
    said: list[str] = []
    cancel_all([done, *active, never], said.append, now=now)
    note = "was terminated" if now else "was told to save and stop"
    assert said == [
        *(f"{run}: job {job.pid} {note}" for run, job in zip(active, jobs, strict=True)),
        "nothing to cancel: 1 finished, 1 new",
    ]
    assert [job.wait(10) for job in jobs] == [-9, -9] if now else [-2, -2]
    assert not never.exists()


def test_a_run_that_cannot_be_reached_does_not_keep_the_others_from_being_cancelled(
    tmp_path: Path, jobs: list[subprocess.Popen[bytes]]
) -> None:
    far, near = run_of(tmp_path / "far"), run_of(tmp_path / "near")
    owned(far, "7", "here", process=Process("elsewhere", "another boot", "", 7, 1))
    owned(near, str(jobs[0].pid), "here", time=time.time())
    said: list[str] = []
    with pytest.raises(UserError, match="1 of 2 runs were not cancelled"):
        cancel_all([far, near], said.append)
    assert "not cancelled: cannot reach process 7 on elsewhere" in said[0]
    assert jobs[0].wait(10) == -2


@pytest.mark.parametrize("cancel", [cancel_all, cancel_each])
def test_a_folder_that_may_not_be_written_does_not_keep_the_others_from_being_cancelled(
    tmp_path: Path, jobs: list[subprocess.Popen[bytes]], cancel: Callable[..., None]
) -> None:
    """Another user's. A lock file that is a folder stands in for it: root may write anywhere."""
    theirs, mine = run_of(tmp_path / "theirs"), run_of(tmp_path / "mine")
    for run, job in zip((theirs, mine), jobs, strict=True):
        owned(run, str(job.pid), "here", time=time.time())
    (theirs / "owner.lock").mkdir()
    said: list[str] = []
    with pytest.raises(UserError, match="1 of 2 runs were not cancelled: Is a directory"):
        cancel([theirs, mine], said.append)
    assert "not cancelled: Is a directory" in said[0]
    assert jobs[1].wait(10) == -2
    assert jobs[0].poll() is None
