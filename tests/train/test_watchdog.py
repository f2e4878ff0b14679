from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from bigchem.train import watchdog as module
from bigchem.train.watchdog import Record, Watchdog, place, verdict


def record(rank: int, phase: str, beats: int) -> Record:
    return Record(rank, 11, phase, beats, 31.4, f"node{rank}", 100 + rank, "loader.py:92")


def test_the_rank_with_the_fewest_beats_is_named_with_its_place() -> None:
    told = verdict([record(0, "backward", 40), record(1, "data", 38), record(2, "backward", 40)], 3, 30)
    assert told == (
        "no progress for 30 s: rank 1 (node1, pid 101) stands in data since 31 s at loader.py:92, "
        "each of 2 ranks (0 2) waits in backward; stacks in logs/"
    )


def test_a_rank_without_a_record_is_named_and_not_the_slowest_of_the_others() -> None:
    told = verdict([record(0, "reduce", 40), record(2, "backward", 39)], 3, 30)
    assert "rank 1 left no record: dead, or frozen with all threads" in told
    assert "stands in" not in told


def test_where_all_stand_at_the_same_point_nobody_is_accused() -> None:
    told = verdict([record(0, "save", 40), record(1, "save", 40)], 2, 30)
    assert "each of 2 ranks (0 1) waits in save at loader.py:92, none is behind" in told


def test_hundreds_of_ranks_still_make_one_line() -> None:
    told = verdict([record(r, "reduce", 40 - (r % 9 == 0)) for r in range(512)], 512, 30)
    assert len(told) < 600
    assert "53 more stand as far back" in told


def test_a_place_is_inside_bigchem_where_the_stack_goes_through_it() -> None:
    assert place(sys._getframe()).startswith("test_watchdog.py:")
    assert place(None) == "nowhere"


class Alone:
    """A watchdog of one rank, of which it is told when it finds that the rank stands still."""

    def __init__(self, run_dir: Path, hang_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found = threading.Event()
        monkeypatch.setattr(module, "on_rank0", lambda function: function())
        monkeypatch.setattr(module, "leave", lambda code: None)
        monkeypatch.setattr(Watchdog, "_hang", lambda watchdog: (self.found.set(), watchdog._stop.set()))
        self.watchdog = Watchdog(run_dir, 0, 1, hang_s, lambda lead: 75)


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


@pytest.mark.parametrize("phase", ["save", "validate", "resume"])
def test_a_long_phase_may_take_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    alone = Alone(tmp_path, 0.4, monkeypatch)
    with alone.watchdog as watchdog:
        watchdog.beat("data", 0)
        watchdog.beat("data", 1)
        watchdog.beat(phase)
        assert not alone.found.wait(1.0)
        assert alone.found.wait(3)


def test_the_first_step_may_take_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Alone(tmp_path, 0.4, monkeypatch)
    with alone.watchdog as watchdog:
        watchdog.beat("data", 100)
        watchdog.beat("forward")
        assert not alone.found.wait(1.0)


def test_the_thread_ends_with_the_run_and_zero_watches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for hang_s in (5.0, 0.0):
        with Alone(tmp_path, hang_s, monkeypatch).watchdog:
            threads = {thread.name for thread in threading.enumerate()}
            assert ("bigchem-watchdog" in threads) == (hang_s > 0)
        assert "bigchem-watchdog" not in {thread.name for thread in threading.enumerate()}
