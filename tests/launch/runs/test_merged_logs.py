"""All ranks' logs merged, in the order in which their lines were written."""

from __future__ import annotations

import io
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from owners import owned

from bigchem.base.errors import UserError
from bigchem.launch.runs import logs, merged_logs
from bigchem.launch.runs.merged_logs import Merged
from bigchem.run.log_files import Log


@given(st.lists(st.text("ab\u00e9", max_size=5), max_size=30), st.integers(0, 40), st.booleans(), st.integers(1, 9))
def test_the_end_of_a_file_begins_where_so_many_lines_are_left(
    lines: list[str], wanted: int, ended: bool, block: int
) -> None:
    text = ("\n".join(lines) + ("\n" if ended and lines else "")).encode()
    file = io.BytesIO(text)
    before, merged_logs.BLOCK = merged_logs.BLOCK, block
    try:
        start = merged_logs.start_of(file, wanted)
    finally:
        merged_logs.BLOCK = before
    expected = text.splitlines(keepends=True)[-wanted:] if wanted else []
    assert text[start:] == b"".join(expected)


def log_of(folder: Path, rank: int) -> Log:
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return Log(folder / "logs" / f"rank{rank}.log")


def texts(lines: list[bytes], *, in_order: bool = True) -> list[tuple[str, str]]:
    """Rank and text of each line. in_order: their times have to be."""
    words = [line.decode().rstrip("\n").split("  ", 2) for line in lines]
    assert not in_order or [when for when, _, _ in words] == sorted(when for when, _, _ in words)
    return [(rank.strip(), text) for _, rank, text in words]


def say(log: Log, *words: str) -> None:
    print(*words, file=log)
    time.sleep(0.002)  # the index has milliseconds


def test_lines_of_all_ranks_are_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    first, second = log_of(tmp_path, 0), log_of(tmp_path, 11)
    say(first, "a", "line of", "pieces")
    say(second, "two\nlines")
    say(first, "\u00e9 is two bytes")
    say(log_of(tmp_path, 11), "of the next attempt, into the same file")
    say(first, "the end")
    expected = [
        ("0", "a line of pieces"),
        *(("11", "two"), ("11", "lines")),
        ("0", "\u00e9 is two bytes"),
        ("11", "of the next attempt, into the same file"),
        ("0", "the end"),
    ]
    assert texts([*Merged(tmp_path / "logs").last(99)]) == expected
    assert texts([*Merged(tmp_path / "logs").last(3)]) == expected[-3:]
    assert texts([*Merged(tmp_path / "logs").last(0)]) == []


def test_a_log_without_an_index_and_a_torn_index_lose_no_line(tmp_path: Path) -> None:
    say(log_of(tmp_path, 0), "with a time")
    (tmp_path / "logs" / "rank0.times").open("ab").write(b"17 1")
    (tmp_path / "logs" / "rank1.log").write_text("without\nhalf a line")
    (before, middle, after) = Merged(tmp_path / "logs").last(9)
    assert before.split() == [b"-", b"1", b"without"]
    assert middle.split(maxsplit=2)[2] == b"half a line\n"
    assert after.endswith(b"with a time\n")


@pytest.mark.parametrize("block", [7, 65536])
def test_the_index_is_read_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(merged_logs, "BLOCK", block)
    log = log_of(tmp_path, 0)
    for number in range(40):
        say(log, f"line {number}")
    (tmp_path / "logs" / "rank0.log").open("ab").write(b"without\na time\nof their own\n")
    every = [*Merged(tmp_path / "logs").last(99)]
    assert len(every) == 43
    for lines in (1, 2, 5, 41):
        assert [*Merged(tmp_path / "logs").last(lines)] == every[-lines:]


def test_a_line_that_is_being_written_is_shown_once_and_whole(tmp_path: Path) -> None:
    log = log_of(tmp_path, 0)
    say(log, "first")
    print("half a", end="", file=log, flush=True)
    merged = Merged(tmp_path / "logs")
    assert texts([*merged.last(5, follow=True)]) == [("0", "first")]
    print(" line", file=log, flush=True)
    assert texts([*merged.grown(), *merged.grown(over=True)]) == [("0", "half a line")]
    assert texts([*Merged(tmp_path / "logs").last(5)])[-1] == ("0", "half a line")


def test_a_run_is_followed_over_all_its_ranks_until_it_is_over(tmp_path: Path) -> None:
    """Four ranks write at the same time; the run then ends."""
    job = subprocess.Popen(["sleep", "60"])
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "state.json").write_text(json.dumps({"state": "running", "step": 3, "steps": 9, "time": time.time()}))
    owned(tmp_path, str(job.pid), "local", world_size=4)
    out = io.BytesIO()
    arguments = {"rank": None, "follow": True, "lines": 400}  # all, however late the follower begins
    follower = threading.Thread(target=logs.show, args=(tmp_path, out), kwargs=arguments)
    follower.start()

    def write(rank: int) -> None:
        log = log_of(tmp_path, rank)
        for number in range(100):
            print("rank", rank, "says", number, file=log)
            time.sleep(0.005)

    writers = [threading.Thread(target=write, args=(rank,)) for rank in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    print("without an end", end="", file=log_of(tmp_path, 2))
    job.kill()
    job.wait()
    follower.join(timeout=20)
    assert not follower.is_alive()
    # A line begun before one poll and ended after it comes with the next: ranks may be milliseconds out of order.
    shown = texts(out.getvalue().splitlines(), in_order=False)
    for rank in range(4):
        mine = [text for of, text in shown if of == str(rank) and "says" in text]
        assert mine == [f"rank {rank} says {number}" for number in range(100)]
    assert shown[-1] == ("2", "without an end")


def test_a_rank_is_a_number_or_all(tmp_path: Path) -> None:
    from bigchem.cli.runs import logs as verb

    with pytest.raises(UserError, match="not a rank: some"):
        verb(tmp_path, rank="some")
