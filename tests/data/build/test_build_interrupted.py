"""Killed builds: real processes, SIGKILL, and the same bytes at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from reading import files_of

RECIPE = """shard_rows = 150
max_lossy = 1.0
[[sources]]
format = "synthetic"
split = "train"
rows = 6000
seed = 1
[[sources]]
format = "synthetic"
split = "test"
rows = 100
seed = 2
"""


def start(folder: Path, out: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bigchem", "data", "build", "recipe.toml", out, "--workers", "2"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def count(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern)))


def workers_of(pid: int) -> list[int]:
    """Children of this process, except multiprocessing's resource tracker."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            command = (stat.parent / "cmdline").read_text()
            if stat.read_text().rpartition(")")[2].split()[1] == str(pid) and "resource_tracker" not in command:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "recipe.toml").write_text(RECIPE)
    assert start(folder, "data").wait(120) == 0
    return folder / "data"


def test_a_build_killed_twice_goes_on_where_it_was_and_ends_in_the_same_bytes(
    uninterrupted: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    work = tmp_path / ".data.partial"
    for pattern, enough in (("parsed/*.arrow", 2), ("made/*/*.npz", 5)):
        build = start(tmp_path, "data")
        until(lambda pattern=pattern, enough=enough: count(work, pattern) >= enough, pattern)
        workers = workers_of(build.pid)
        os.kill(build.pid, signal.SIGKILL)
        build.wait(10)
        assert workers
        until(lambda workers=workers: not any(map(alive, workers)), "the workers end with their parent", 10)
        assert not (tmp_path / "data").exists()
    (work / "data" / "train" / ".forward-00099.arrow.1.partial").write_bytes(b"half")
    before = {path: path.stat().st_mtime_ns for path in work.glob("made/*/*.npz")}
    last = start(tmp_path, "data")
    until(lambda: count(work, "made/*/*.npz") > len(before), "the next shard")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path.exists())
    _, output = last.communicate(timeout=120)
    assert last.returncode == 0, output
    assert "resuming an interrupted build" in output
    assert files_of(tmp_path / "data") == files_of(uninterrupted)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_changed_recipe_does_not_go_on_with_what_another_left(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    build = start(tmp_path, "data")
    until(lambda: count(tmp_path / ".data.partial", "parsed/*.arrow") >= 1, "a chunk")
    build.kill()
    build.wait(10)
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("6000", "300").replace("seed = 1", "seed = 3"))
    again = start(tmp_path, "data")
    _, output = again.communicate(timeout=60)
    assert again.returncode == 0, output
    assert "interrupted" not in output
    assert '"rows": 300' in (tmp_path / "data" / "index.json").read_text()


def test_two_builds_of_one_folder_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    first = start(tmp_path, "data")
    until((tmp_path / ".data.partial" / "recipe").exists, "the first build's start")
    second = start(tmp_path, "data")
    _, output = second.communicate(timeout=60)
    first.kill()
    first.wait(10)
    assert second.returncode == 2
    assert "another build is writing it" in output


def test_a_worker_that_is_killed_stops_the_build_with_the_way_on(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    build = start(tmp_path, "data")
    until(lambda: count(tmp_path / ".data.partial", "parsed/*.arrow") >= 1, "a chunk")
    os.kill(workers_of(build.pid)[0], signal.SIGKILL)
    _, output = build.communicate(timeout=60)
    assert build.returncode == 2
    assert "a worker process died" in output
    assert "a build resumes where it was" in output
    assert "Traceback" not in output
