"""Locks between real processes, and on a file system without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

import pytest

from bigchem.base import file_lock
from bigchem.base.errors import UserError
from bigchem.base.file_lock import NoLocksError, exclusive, holder, lock, lock_if_possible
from bigchem.base.progress import Progress
from bigchem.data.build.work_folder import work_folder
from bigchem.data.storage.cache import Cache
from bigchem.export.unfinished import unfinished

HOLD = """
import sys, time
from pathlib import Path
from bigchem.base.file_lock import exclusive
with exclusive(Path(sys.argv[1]), "compiles cpu_adam"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def another(path: Path, seconds: float = 600) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLD, path, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_stopped_holder_is_named_while_waiting_and_the_wait_ends_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lock"
    with another(file) as process:
        process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(UserError) as raised, exclusive(file, "waits", timeout_s=0.5, report_after_s=0.2):
            pytest.fail("the lock is another's")
        assert 0.5 <= time.monotonic() - begun < 5
        who = f"pid {process.pid} on {platform.node()}, which compiles cpu_adam (for "
        output = capsys.readouterr().err
        assert f"waiting for {who}" in output
        assert "and is stopped)" in output
        assert who in raised.value.what
        assert raised.value.where == str(file)
        assert f"kill -9 {process.pid}" in str(raised.value.hint)


def test_a_killed_holder_leaves_its_name_but_not_its_lock(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with another(file) as process:
        process.kill()
        process.wait()
        left = holder(file)
        assert left is not None
        assert left.pid == process.pid
        with exclusive(file, "goes on", timeout_s=5) as locked:
            assert locked
            now = holder(file)
            assert now is not None
            assert (now.pid, now.purpose) == (os.getpid(), "goes on")
    assert holder(file) is None


def test_a_lock_that_gets_free_is_taken_within_the_wait(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with another(file, seconds=0.5), exclusive(file, "waits", timeout_s=60) as locked:
        assert locked


def test_a_child_that_inherited_the_file_does_not_keep_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with exclusive(file, "starts a process"):
        fds = [int(fd.name) for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd) == str(file)]
        assert len(fds) == 1
        child = subprocess.Popen(["sleep", "60"], pass_fds=fds)
    try:
        with exclusive(file, "goes on", timeout_s=1) as locked:
            assert locked
    finally:
        child.kill()
        child.wait()


def test_a_transient_lock_is_removed_and_one_that_was_removed_meanwhile_is_locked_anew(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with another(file, seconds=0.5), exclusive(file, "waits", timeout_s=60, transient=True):
        file.unlink()
        file.touch()  # as the next process would: its lock is on a new file
        with exclusive(file, "is the next", timeout_s=1) as locked:
            assert locked


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a file system without locks: flock fails as it does there."""

    def flock(handle: object, operation: int) -> NoReturn:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(file_lock, "_warned", False)


def by_exclusive(folder: Path) -> None:
    with exclusive(folder / "lock", "submits a run") as locked:
        assert not locked


def by_handle(folder: Path) -> None:
    with (folder / "lock").open("wb") as handle:
        assert lock_if_possible(handle, wait=False)


def by_build(folder: Path) -> None:
    with work_folder(folder / "data", "a recipe", Progress(quiet=True)) as work:
        assert work.is_dir()


def by_export(folder: Path) -> None:
    with unfinished(folder / "model", {}) as model:
        assert model.folder.is_dir()
        (model.folder / "file").touch()


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("command", [by_exclusive, by_handle, by_build, by_export])
def test_without_locks_a_persons_command_warns_once_and_goes_on(
    command: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    command(tmp_path / "1")
    command(tmp_path / "2")
    warnings = capsys.readouterr().err
    assert warnings.count("warning: ") == 1
    assert "this file system has no locks" in warnings
    assert "run one at a time" in warnings


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_cache_refuses_and_says_how_to_move_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"this file system has no locks.*\nnext: .*BIGCHEM_CACHE"):
        Cache(tmp_path, 1.0)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_plain_lock_says_so(tmp_path: Path) -> None:
    handle: IO[bytes]
    with (tmp_path / "lock").open("wb") as handle, pytest.raises(NoLocksError, match="has no locks"):
        lock(handle)
