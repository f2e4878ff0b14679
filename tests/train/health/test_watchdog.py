from __future__ import annotations

import errno
import json
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from bigchem.run.state import read_state, write_state
from bigchem.train.health import watchdog as module
from bigchem.train.health.watchdog import Heartbeat, Watchdog, collective_timeout, innermost_call, verdict


def record(rank: int, phase: str, beats: int) -> Heartbeat:
    return Heartbeat(rank, 11, phase, beats, 31.4, f"node{rank}", 100 + rank, "loader.py:92")


def test_the_rank_with_the_fewest_beats_is_named_with_its_place() -> None:
    line = verdict([record(0, "backward", 40), record(1, "data", 38), record(2, "backward", 40)], 3)
    assert line == (
        "no progress for 31 s: rank 1 (node1, pid 101) stuck in data for 31 s at loader.py:92, "
        "each of 2 ranks (0 2) waiting in backward; stacks in logs/"
    )


def test_a_rank_without_a_record_is_named_and_not_the_slowest_of_the_others() -> None:
    line = verdict([record(0, "reduce", 40), record(2, "backward", 39)], 3)
    assert "rank 1 left no record: dead, or frozen with all threads" in line
    assert "stuck in" not in line


def test_where_all_stand_at_the_same_point_nobody_is_accused() -> None:
    line = verdict([record(0, "save", 40), record(1, "save", 40)], 2)
    assert "each of 2 ranks (0 1) waiting in save at loader.py:92, none is behind" in line


def test_hundreds_of_ranks_still_make_one_line() -> None:
    line = verdict([record(r, "reduce", 40 - (r % 9 == 0)) for r in range(512)], 512)
    assert len(line) < 600
    assert "53 more are as far behind" in line


def test_a_place_is_inside_bigchem_where_the_stack_goes_through_it() -> None:
    assert innermost_call(sys._getframe()).startswith("test_watchdog.py:")
    assert innermost_call(None) == "nowhere"


class Alone:
    """A one-rank watchdog. `found` is set when it finds a hang."""

    def __init__(
        self,
        run_dir: Path,
        hang_s: float,
        monkeypatch: pytest.MonkeyPatch,
        hangs: bool = False,
        device: FarBehind | None = None,
    ) -> None:
        self.found = threading.Event()
        monkeypatch.setattr(module, "on_rank0", lambda function: function())
        self.left: list[int] = []
        self.asked: list[bool] = []
        monkeypatch.setattr(module, "exit_now", lambda code: (self.left.append(code), hangs and sys.exit()))
        if not hangs:
            monkeypatch.setattr(Watchdog, "_hang", lambda watchdog: (self.found.set(), watchdog._stop.set()))
        self.watchdog = Watchdog(run_dir, 0, 1, hang_s, lambda lead: self.asked.append(lead) or 75, device)


def test_a_rank_that_beats_is_left_alone_and_one_that_does_not_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Alone(tmp_path, 0.5, monkeypatch)
    with alone.watchdog as watchdog:
        for step in range(8):
            watchdog.beat("data", step)
            time.sleep(0.15)
        assert not alone.found.is_set()
        assert alone.found.wait(2)


@pytest.mark.parametrize("phase", ["save", "validate", "resume", "profile", "download"])
def test_a_long_phase_may_take_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    alone = Alone(tmp_path, 0.4, monkeypatch)
    with alone.watchdog as watchdog:
        watchdog.beat("data", 0)
        watchdog.beat("data", 1)
        watchdog.beat(phase)
        assert not alone.found.wait(1.0)
        assert alone.found.wait(6)


def test_a_call_of_this_attempt_is_followed_and_what_earlier_ones_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Alone(tmp_path, 0.0, monkeypatch)
    with old.watchdog:
        old.watchdog._called.touch()
        (tmp_path / "health" / "rank3.json").write_text("{}")
    alone = Alone(tmp_path, 4.0, monkeypatch)
    with alone.watchdog as watchdog:
        assert not list((tmp_path / "health").iterdir())
        watchdog.beat("data", 7)
        old.watchdog._called.touch()  # a network file system may still show it
        assert not alone.found.wait(0.5)
        watchdog._called.touch()
        assert alone.found.wait(2.5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # here exiting ends the thread
@pytest.mark.parametrize(
    ("state", "asked", "code"),
    [
        ({"state": "failed", "reason": "out of memory", "end": "mistake"}, [], 2),
        ({"state": "failed", "reason": "KeyError: 'x'", "end": "error"}, [], 1),
        ({"state": "failed", "reason": "rank 0 lost its connection", "end": "lost rank"}, [False], 75),
        ({"state": "stopped", "end": "stopped"}, [], 3),
        ({"state": "running"}, [True], 75),
    ],
)
def test_a_hang_behind_a_failure_keeps_its_reason_and_asks_for_no_new_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], asked: list[bool], code: int
) -> None:
    alone = Alone(tmp_path, 0.1, monkeypatch, hangs=True)
    with alone.watchdog as watchdog:
        write_state(tmp_path, **state)
        watchdog._thread.join(timeout=10)
    assert (alone.left[0], alone.asked) == (code, asked)
    if state["state"] == "running":
        assert "hang at step 1" in read_state(tmp_path)["reason"]
    else:
        assert state.items() <= read_state(tmp_path).items()


@pytest.mark.parametrize("hang_s", [1.0, 1800.0, 40000.0])
def test_a_collective_operation_waits_longer_than_any_watchdog(hang_s: float) -> None:
    found = collective_timeout(hang_s).total_seconds()
    assert found >= max(module.PATIENCE.values()) * hang_s + 60
    assert collective_timeout(0.0).days == 1


def test_the_first_step_may_take_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Alone(tmp_path, 0.4, monkeypatch)
    with alone.watchdog as watchdog:
        watchdog.beat("data", 100)
        watchdog.beat("forward")
        assert not alone.found.wait(1.0)


def test_the_thread_ends_with_the_run_and_zero_finds_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for hang_s in (5.0, 0.0):
        with Alone(tmp_path, hang_s, monkeypatch).watchdog as watchdog:
            assert "bigchem-watchdog" in {thread.name for thread in threading.enumerate()}
            watchdog._now = (3, "data", 9, -1e9)
            watchdog._steps_begun = 3
            assert watchdog._is_stuck() == (hang_s > 0)
            watchdog.beat("data")
        assert "bigchem-watchdog" not in {thread.name for thread in threading.enumerate()}


def test_a_rank_whose_gpu_is_behind_is_named_though_all_hosts_stand_at_the_same_place() -> None:
    line = verdict([replace(record(r, "reduce", 40), device=("backward", 39 - r % 2)) for r in range(3)], 3)
    assert "rank 1 (node1, pid 101) stuck in reduce for 31 s at loader.py:92, its GPU in backward" in line
    assert "each of 2 ranks (0 2) waiting in reduce" in line


class FarBehind:
    """Stand-in for a GPU that has reached the first heartbeat."""

    def beat(self, phase: str, beats: int) -> None:
        pass

    def reached(self) -> tuple[str, int]:
        return ("forward", 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # here exiting ends the thread
def test_a_hang_leaves_the_gpus_place_and_the_flight_recorders_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Alone(tmp_path, 0.1, monkeypatch, hangs=True, device=FarBehind())
    with alone.watchdog as watchdog:
        write_state(tmp_path, "running")
        watchdog._thread.join(timeout=10)
    (found,) = module.read_heartbeats(tmp_path / "health", 1)
    assert (found.device, found.reached) == (("forward", 1), 1)
    assert "pg_status" in json.loads((tmp_path / "health" / "flight0.json").read_text())
    assert (tmp_path / "health" / "flight_rank_0").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_hang_on_a_full_disk_is_still_told_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **more: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    alone = Alone(tmp_path, 0.1, monkeypatch, hangs=True)
    with alone.watchdog as watchdog:
        (tmp_path / "logs" / "rank0.log").symlink_to("/dev/full")
        (tmp_path / "events.jsonl").symlink_to("/dev/full")
        monkeypatch.setattr("bigchem.base.atomic.write_atomically", full)
        watchdog._thread.join(timeout=10)
    assert (alone.left[0], alone.asked) == (75, [True])
    assert "hang at step 1: no progress for" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_whose_folder_is_removed_ends_with_a_word_and_nothing_makes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.toml").touch()
    notices: list[tuple[str, int]] = []
    monkeypatch.setattr("bigchem.train.health.peers.exit_with_peers", lambda *args: (notices.append(args), sys.exit()))
    with Alone(run_dir, 0.5, monkeypatch).watchdog as watchdog:
        shutil.rmtree(run_dir)
        with pytest.raises(FileNotFoundError):
            write_state(run_dir, "running")
        watchdog._thread.join(timeout=10)
    assert notices == [(f"the run folder was removed: {run_dir}", 2)]
    assert f"error: the run folder was removed: {run_dir}" in capfd.readouterr().err
    assert not run_dir.exists()
