"""The history of a run's attempts, and when a job is not requeued. Pure except for files."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from owners import owned

from bigchem.launch import requeue
from bigchem.launch.runs import history
from bigchem.launch.runs.history import Attempt, outcome_of, why_not_requeue
from bigchem.launch.runs.owner import mark_cancelled
from bigchem.launch.slurm import squeue
from bigchem.launch.slurm.nodes import Exclusion
from bigchem.run.lifecycle import End, Writer, is_restarted
from bigchem.run.state import end, read_state, write_state

BEGUN = Attempt(1, "7", 0, "node[1-2]", 4, 10, 1000.0)
SLURM = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"}


@pytest.mark.parametrize(
    ("state", "after", "end", "to_step"),
    [
        ({"state": "trained", "time": 1060.0, "step": 60}, True, "trained", 60),
        ({"state": "stopped", "time": 1060.0, "step": 14, "end": "preempted"}, True, "preempted", 14),
        ({"state": "stopped", "time": 1060.0, "step": 14, "reason": "SIGINT", "end": "stopped"}, True, "stopped", 14),
        ({"state": "failed", "time": 1060.0, "step": 14, "end": "lost rank"}, True, "lost rank", 14),
        ({"state": "failed", "time": 1060.0, "step": 14, "end": "hung"}, True, "hung", 14),
        ({"state": "failed", "time": 1060.0, "step": 14, "end": "mistake"}, True, "mistake", 14),
        ({"state": "stopped", "time": 1060.0, "step": 14, "end": "time limit"}, True, "time limit", 14),
        ({"state": "running", "time": 1060.0, "step": 14}, True, "killed", 14),
        ({"state": "running", "time": 1060.0, "step": 14}, False, "vanished", 14),
        (
            {"state": "failed", "time": 999.0, "step": 14, "end": "lost rank"},
            True,
            "killed",
            10,
        ),  # an earlier one's
        ({"state": "new"}, False, "vanished", 10),
    ],
)
def test_how_an_attempt_ended(state: dict[str, Any], after: bool, end: str, to_step: int) -> None:
    row = outcome_of(BEGUN, state, 1061.0, after=after)
    assert (row.end, row.to_step) == (end, to_step)
    assert row.seconds == (61.0 if after else 60.0 if state.get("time", 0) > 1000 else 0.0)


def failing(*steps: int, job: str = "7", end: str = "killed") -> list[Attempt]:
    return [Attempt(n, job, n, "node1", 4, 0, 0.0, to_step=step, end=end) for n, step in enumerate(steps)]


@pytest.mark.parametrize(
    ("rows", "restart", "refused"),
    [
        (failing(14, 14), 1, None),
        (failing(14, 14, 14), 2, "3 attempts in a row ended after step 14"),
        (failing(14, 15, 15), 2, None),  # it makes progress
        (failing(14, 14, 14, end="vanished"), 2, None),  # Slurm's doing
        ([*failing(14, 14, job="6"), *failing(14)], 0, None),  # submitted again since, so the user has seen it
        (failing(14), 20, "restarted 20 times already"),
    ],
)
def test_what_is_not_started_again(rows: list[Attempt], restart: int, refused: str | None) -> None:
    message = why_not_requeue(rows, restart, 20)
    assert message is None if refused is None else refused in str(message)


def test_each_attempt_gets_one_row_though_it_left_no_word(tmp_path: Path) -> None:
    history.begin(tmp_path, "7", 0, "node[1-2]", 4)
    write_state(tmp_path, "running", step=4, steps=9)
    history.begin(tmp_path, "7", 1, "node1", 2)
    unfinished = (tmp_path / "attempt.json").read_text()
    write_state(tmp_path, "trained", step=9, steps=9)
    assert history.close(tmp_path) == history.read(tmp_path)[-1]
    (tmp_path / "attempt.json").write_text(unfinished)  # killed between the row and this file's removal
    history.close(tmp_path)
    assert history.close(tmp_path) is None
    (tmp_path / "history.jsonl").open("a").write('{"attempt": 3, "jo')  # and in the middle of a row
    rows = history.read(tmp_path)
    assert [(r.attempt, r.restart, r.ranks, r.to_step, r.end) for r in rows] == [
        (1, 0, 4, 4, "vanished"),
        (2, 1, 2, 9, "trained"),
    ]


def test_an_end_told_by_a_node_whose_clock_is_behind_is_that_of_this_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.begin(tmp_path, "7", 0, "node[1-2]", 4)
    write_state(tmp_path, "prepared", steps=60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3)  # of rank 5's node
    assert end(tmp_path, Writer.ANY_RANK, End.MISTAKE, "no such task", rank=5)
    monkeypatch.undo()
    row = history.close(tmp_path, code=2)
    assert row is not None
    assert (row.end, row.why) == ("mistake", "no such task")


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that records its calls, and fails if there is a file `down` beside it."""
    program = tmp_path / "scontrol"
    text = (
        "import sys; from pathlib import Path; here = Path(__file__).parent\n"
        "if (here / 'down').exists(): sys.exit('slurm_update error: Unable to contact slurm controller')\n"
        "(here / 'asked').open('a').write(' '.join(sys.argv[1:]))"
    )
    program.write_text(f"#!{sys.executable}\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(requeue, "PAUSE_S", 0.0)
    owned(tmp_path)
    return tmp_path / "asked"


def test_processes_that_died_without_a_word_are_started_again_until_it_is_no_use(
    tmp_path: Path, scontrol: Path
) -> None:
    for restart in range(3):
        history.begin(tmp_path, "7", restart, "node1", 4)
        write_state(tmp_path, "running", step=14, steps=60)
        requeue.settle(tmp_path, 137, 20, {**SLURM, "SLURM_RESTART_COUNT": str(restart)})
        state = read_state(tmp_path)
        assert (state["state"], state["end"], is_restarted(state)) == ("failed", "killed", restart < 2)
        assert "after step 14 without giving a reason (exit code 137)" in state["reason"]
    assert scontrol.read_text() == "requeue 7" * 2
    assert "3 attempts in a row ended after step 14" in state["reason"]
    assert json.loads((tmp_path / "history.jsonl").read_text().splitlines()[2])["why"] == "exit code 137, signal 9"


def test_processes_that_died_before_they_began_count_as_attempts(tmp_path: Path, scontrol: Path) -> None:
    history.begin(tmp_path, "7", 0, "node1", 4)
    write_state(tmp_path, "running", step=14, steps=60)  # and its node was lost
    for restart in range(1, 4):
        requeue.settle(tmp_path, 1, 20, {**SLURM, "SLURM_RESTART_COUNT": str(restart)})
    rows = history.read(tmp_path)
    assert [(row.restart, row.end, row.ranks) for row in rows] == [
        *((0, "vanished", 4), (1, "killed", 0), (2, "killed", 0), (3, "killed", 0))
    ]
    assert scontrol.read_text() == "requeue 7" * 2
    assert "3 attempts in a row" in read_state(tmp_path)["reason"]


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ({"state": "trained", "end": "trained"}, 0),
        ({"state": "failed", "end": "mistake", "reason": "no such task"}, 2),
        ({"state": "failed", "end": "error", "reason": "ValueError: x"}, 1),
        ({"state": "stopped", "end": "stopped", "reason": "SIGINT"}, 3),
    ],
)
def test_a_run_that_is_over_is_left_alone(tmp_path: Path, scontrol: Path, word: dict[str, Any], code: int) -> None:
    history.begin(tmp_path, "7", 0, "node1", 4)
    write_state(tmp_path, step=9, **word)
    requeue.settle(tmp_path, code, 20, SLURM)
    assert not scontrol.exists()
    assert {**read_state(tmp_path), "time": 0} == {**word, "step": 9, "time": 0}


def test_a_controller_that_does_not_answer_is_named_in_the_state(tmp_path: Path, scontrol: Path) -> None:
    (tmp_path / "down").touch()
    history.begin(tmp_path, "7", 0, "node1", 4)
    write_state(tmp_path, "stopped", step=9, reason="SIGUSR2", end="preempted")
    requeue.settle(tmp_path, 75, 20, SLURM)
    state = read_state(tmp_path)
    assert (state["state"], state["step"], is_restarted(state)) == ("stopped", 9, False)
    assert "Unable to contact slurm controller" in state["reason"]
    assert "submit it again to continue" in state["reason"]


def test_an_attempt_that_a_full_disk_did_not_note_is_judged_all_the_same(
    tmp_path: Path, scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the previous row, whose attempt the user stopped."""
    history.begin(tmp_path, "6", 0, "node1", 4)
    write_state(tmp_path, "stopped", step=4, reason="SIGINT", end="stopped")
    history.close(tmp_path)
    history.begin(tmp_path, "7", 0, "node1", 4)
    write_state(tmp_path, "stopped", step=9, reason="SIGUSR2", end="preempted")

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "_append", lambda run_dir, row: None)
    monkeypatch.setattr(requeue, "end", full)
    requeue.settle(tmp_path, 75, 20, SLURM)
    assert scontrol.read_text() == "requeue 7"


def test_a_mistake_told_before_the_attempt_began_is_not_tried_again(tmp_path: Path, scontrol: Path) -> None:
    write_state(tmp_path, "failed", step=0, reason="cannot create scratch", end="mistake")
    requeue.settle(tmp_path, 1, 20, SLURM)
    assert not scontrol.exists()
    assert read_state(tmp_path)["reason"] == "cannot create scratch"


def test_a_job_cancelled_while_slurm_does_not_answer_is_not_started_again(tmp_path: Path, scontrol: Path) -> None:
    history.begin(tmp_path, "7", 0, "node1", 4)
    write_state(tmp_path, "stopped", step=9, reason="SIGUSR2", end="preempted")
    mark_cancelled(tmp_path, owned(tmp_path))
    assert requeue._requeue(tmp_path, "7", Exclusion()) == "it was cancelled"
    assert not scontrol.exists()


@pytest.mark.parametrize("spare", [True, False])
def test_a_node_that_failed_two_attempts_is_excluded_if_others_are_left(
    tmp_path: Path, scontrol: Path, spare: bool
) -> None:
    """Stand-ins for scontrol and sinfo; tests/slurm/test_survival.py has the real ones."""
    lines = [
        "import sys; from pathlib import Path; here = Path(__file__).parent",
        "if 'show' in sys.argv: sys.exit(print('JobId=7 Partition=gpu NumNodes=1 ExcNodeList=gpu9 Features=(null)'))",
        "(here / 'asked').open('a').write(' '.join(sys.argv[1:]) + chr(10))",
    ]
    rows = ["node1|idle|(null)|gpu*", "gpu9|idle|(null)|gpu*", *(["node2|mixed|(null)|gpu*"] if spare else [])]
    for name, text in (("scontrol", "\n".join(lines)), ("sinfo", f"print({chr(10).join(rows)!r})")):
        (tmp_path / name).write_text(f"#!{sys.executable}\n{text}\n")
        (tmp_path / name).chmod(0o755)
    errors = tmp_path / "said"
    for restart in range(2):
        history.begin(tmp_path, "7", restart, "node1", 4)
        write_state(tmp_path, "running", step=14 + restart, steps=60)
        errors.write_text(f"bigchem: start {restart}\nsrun: error: node1: task 3: Killed\n")
        assert requeue.settle(tmp_path, 137, 20, {**SLURM, "SLURM_RESTART_COUNT": str(restart)}, errors)
    assert [row.failed_nodes for row in history.read(tmp_path)] == ["node1", "node1"]
    asked = ["requeue 7", "requeue 7", *(["update JobId=7 ExcNodeList=gpu9,node1"] if spare else [])]
    assert scontrol.read_text().splitlines() == asked
    note = "node1 failed 2 attempts: " + (
        "it is excluded" if spare else "not excluded, as the job needs 1 and 0 would be left"
    )
    assert note in read_state(tmp_path)["reason"]
    assert note in json.loads((tmp_path / "events.jsonl").read_text())["detail"]


@pytest.mark.parametrize(("code", "again"), [(75, True), (2, False)])
def test_a_first_start_whose_ranks_have_not_met_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scontrol: Path, code: int, again: bool
) -> None:
    """No rank has claimed the run yet, in the user's own batch script."""
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(requeue.owner.squeue, "ask", lambda jobs: squeue.Queue())
    assert requeue.settle(tmp_path / "run", code, 20, SLURM) == again
    assert scontrol.exists() == again


@pytest.mark.parametrize(
    ("line", "final"),
    [
        ("srun: error: Unable to create step for job 7: Requested node configuration is not available", True),
        ("srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU, and SLURM_MEM_PER_NODE are mutually exclusive.", True),
        ("srun: error: node1: task 0: Exited with exit code 2", False),
        ("srun: error: Task launch for StepId=7.0 failed on node n1: Communication connection failure", False),
        ("srun: error: Unable to confirm allocation for job 7: Socket timed out on send/recv operation", False),
        ("srun: error: Unable to create step for job 7: Job/step already completing or completed", False),
    ],
)
def test_what_srun_says_before_any_rank_begins_is_final_unless_it_may_pass(
    tmp_path: Path, line: str, final: bool
) -> None:
    (tmp_path / "said").write_text(f"srun: error: of an earlier start\nbigchem: start 1\n{line}\n")
    assert requeue.launch_error(tmp_path / "said") == (line if final else None)
