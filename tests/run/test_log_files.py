from __future__ import annotations

import io
import json
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from bigchem.run import log_files
from bigchem.run.log_files import Log, Rows
from bigchem.train.health.events import report


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_disk_that_fills_inside_a_row_tears_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Rows(tmp_path / "metrics.jsonl")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30, before[1]))
        assert [file.add({"step": number}) for number in range(5)] == [True, True, False, False, False]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "metrics.jsonl").stat().st_size == 30
    assert not file.complete
    assert file.add({"step": 5})
    assert read(tmp_path / "metrics.jsonl") == [{"step": number} for number in range(6)]
    output = capsys.readouterr().out
    assert output.count("metrics.jsonl: File too large; training continues") == 1
    assert output.count("metrics.jsonl is written again") == 1


def test_rows_beyond_what_memory_keeps_are_lost_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "MAX_PENDING_BYTES", 30)
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    file = Rows(path)
    for number in range(5):
        file.add({"step": number})
    path.unlink()
    file.add()
    assert read(path) == [{"step": 0}, {"step": 1}]
    assert file.lost


def test_a_row_that_another_thread_adds_during_a_write_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Rows(tmp_path / "events.jsonl")
    file.add({"step": 0})
    other = threading.Thread(target=file.add, args=({"step": 2},))

    class Slow(io.FileIO):
        """A file whose first write takes long enough for the other thread to begin."""

        def write(self, content: Any) -> int:
            if other.ident is None:
                other.start()
                other.join(0.2)
            return super().write(content)

    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: Slow(path, "a"))
    file.add({"step": 1})
    other.join()
    monkeypatch.undo()
    assert [row["step"] for row in read(tmp_path / "events.jsonl")] == [0, 1, 2]


def test_an_event_on_a_full_disk_is_still_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    report(tmp_path, 7, "slow rank", "they wait", "rank 1")
    assert "slow rank at step 7" in capsys.readouterr().out
    (tmp_path / "events.jsonl").unlink()
    report(tmp_path, 8, "slow rank", "they wait", "rank 2")
    assert [row["step"] for row in read(tmp_path / "events.jsonl")] == [7, 8]


def test_a_log_on_a_full_disk_loses_lines_and_not_the_run(tmp_path: Path) -> None:
    log = Log(Path("/dev/full"))
    print("a line", file=log, flush=True)
    log = Log(tmp_path / "rank0.log")
    print("a line", file=log)
    assert (tmp_path / "rank0.log").read_text() == "a line\n"
