"""GPU-hours, efficiency and remaining time of hand-made attempts."""

from __future__ import annotations

import csv
import io
import json

import pytest

from bigchem.launch.runs.history import Attempt
from bigchem.launch.runs.status import RunStatus
from bigchem.launch.runs.status_table import summary, summary_lines, to_csv, to_json, to_markdown
from bigchem.launch.runs.usage import Remaining, efficiency, remaining_of_all, used

ENDED = Attempt(1, "7", 0, "n1", 8, 0, 0.0, 50, "preempted", seconds=1800.0)
NEVER = Attempt(2, "7", 1, "n1", 0, 50, 0.0, 50, "killed", seconds=60.0)
OPEN = Attempt(3, "7", 2, "n1", 4, 50, 10_000.0)


def test_hours_are_each_attempts_seconds_times_its_ranks() -> None:
    assert used([], 0) == (0, 0)
    assert used([ENDED, NEVER, OPEN], 10_900) == (1800 + 60 + 900, 4 + 0 + 1)
    assert used([OPEN], 9_000) == (0, 0)  # clocks of two machines


def test_efficiency_is_the_share_of_training_in_the_attempts_time() -> None:
    assert efficiency(900, 1800) == 0.5
    assert efficiency(1900, 1800) == 1.0
    assert efficiency(None, 1800) is None
    assert efficiency(0.0, 0.0) is None


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        ([Remaining(False, 50), Remaining(False, 10)], 50),
        (
            [Remaining(False, 50), Remaining(False, 10), Remaining(True, 30), Remaining(True, 30)],
            70,
        ),  # from 10 to 40, and on to 70
        ([Remaining(False, 10), *[Remaining(True, 20)] * 3], 70),
        ([Remaining(True, 20)], None),  # unknown how many run at a time
        ([Remaining(False, 10), Remaining(True, None)], None),
        ([], None),
    ],
)
def test_the_time_left_fills_the_places_that_are_taken_now(runs: list[Remaining], seconds: float | None) -> None:
    assert remaining_of_all(runs) == seconds


ROWS = [
    RunStatus("a", "finished", False, 100, 100, seconds=1000, hours=2.0, hours_of="GPU", efficiency=0.9),
    RunStatus("b", "running", True, 50, 100, eta_s=600, seconds=500, hours=1.0, hours_of="GPU", efficiency=0.6),
    RunStatus("c", "queued", True, 0, 100, reason="Priority|x", starts_at=1e9),
    RunStatus("d", "failed", False, 50, 100, reason="ValueError"),
]


def test_a_summary_adds_runs_up() -> None:
    found = summary(ROWS)
    assert found.states == {"finished": 1, "running": 1, "queued": 1, "failed": 1}
    assert (found.done, found.on_their_way, found.stranded, found.progress) == (1, 2, 1, 0.5)
    assert found.hours == {"GPU": 3.0}
    assert found.efficiency == pytest.approx((0.9 * 1000 + 0.6 * 500) / 1500)
    assert found.eta_s == 600 + 1000  # the waiting run takes as long as those that have begun
    assert summary_lines(found).splitlines() == [
        "4 runs   1 finished, 1 running, 1 queued, 1 failed",
        "done      1 of 4, 50% of all steps; 1 neither done nor active",
        "used      3.0 GPU-hours, 80% of the time in training",
        "time left 0:26:40",
    ]
    assert "nothing queued or running" in summary_lines(summary(ROWS[:1]))
    assert summary([]).efficiency is None


def test_csv_has_the_fields_of_json_and_markdown_the_columns_of_the_table() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(ROWS))))
    assert list(rows[0]) == list(to_json(ROWS)[0])
    assert (rows[1]["run"], rows[1]["eta_s"], rows[1]["efficiency"], rows[1]["loss"]) == ("b", "600", "0.6", "")
    head, rule, *lines = to_markdown(ROWS).splitlines()
    assert head.startswith("| run | state | step |")
    assert rule.count("---") == head.count("|") - 1
    assert len(lines) == 4
    assert "Priority\\|x" in lines[2]
    json.dumps(to_json(ROWS))
