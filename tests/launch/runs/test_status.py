"""What `bigchem status` makes of run folders and squeue's output. squeue is a stand-in here; tests/slurm has a real
one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from owners import owned
from quickest import quickest
from rich.console import Console
from runs import config_of

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.runs.history import Attempt
from bigchem.launch.runs.owner import Liveness
from bigchem.launch.runs.status import RunStatus, _state_and_reason, all_runs, has_succeeded, run_status
from bigchem.launch.runs.status_table import table, to_markdown
from bigchem.launch.slurm import squeue
from bigchem.launch.submit import resume, submit
from bigchem.train.checkpoint import store

ANSWER = "{job:<40}|{state:<20}|{reason:<80}|{nodes:<500}|{restarts:<10}|{starts:<25}|"


def line(job: str, state: str, reason: str = "None", nodes: str = "", restarts: int = 0, starts: str = "N/A") -> str:
    return ANSWER.format(job=job, state=state, reason=reason, nodes=nodes, restarts=restarts, starts=starts)


def program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def make_run(folder: Path, job: str, state: str = "running", **more: Any) -> Path:
    (folder / "checkpoints" / "step_00000200").mkdir(parents=True)
    (folder / "checkpoints" / "step_00000200" / "manifest.json").write_text("{}")
    (folder / "config.toml").write_text("")
    content = {"state": state, "time": time.time() - 90, "step": 250, "steps": 1000}
    (folder / "state.json").write_text(json.dumps(content))
    owned(folder, job, **more)
    row = {"step": 250, "tokens": 250_000, "loss": 2.5, "tokens_per_s": 500.0, "training_s": 2700.0}
    opened = Attempt(3, job, 1, "gpu01", 8, 0, time.time() - 1800)
    (folder / "attempt.json").write_text(json.dumps(asdict(opened)))
    (folder / "model.json").write_text(json.dumps({"device": "NVIDIA H100 80GB HBM3"}))
    (folder / "metrics.jsonl").write_text((json.dumps(row) + "\n") * 250)
    return folder


def test_a_row_has_what_the_folder_and_slurm_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "base", "7")
    ended = [Attempt(number, "6", 0, "gpu01", 4, 0, 1.0, 100, "preempted", seconds=900.0) for number in (1, 2)]
    (run / "history.jsonl").write_text("".join(f"{json.dumps(asdict(row))}\n" for row in ended))
    program(tmp_path, "squeue", f"echo '{line('7', 'RUNNING', nodes='gpu[01-02]', restarts=1)}'", monkeypatch)
    row = run_status(run)
    assert (row.run, row.state, row.active, row.job, row.nodes) == ("base", "running", True, "7", "gpu[01-02]")
    assert (row.step, row.steps, row.loss, row.tokens_per_s) == (250, 1000, 2.5, 500.0)
    assert row.eta_s == 750 * 1000 / 500
    assert row.restarts == 2  # attempts of earlier jobs count as well
    assert row.checkpoint == "step_00000200"
    assert row.checkpoint_age_s is not None
    assert row.checkpoint_age_s < 60
    assert 90 <= (row.state_age_s or 0) < 150
    assert row.starts_at is None
    assert (row.seconds, row.hours) == pytest.approx((3600, 6.0), abs=5)  # twice 900 s of 4 ranks, 1800 s of 8
    assert row.hours_of == "GPU"
    assert row.efficiency == pytest.approx(0.75, abs=0.01)


def test_an_attempt_whose_job_is_gone_counts_until_the_run_last_spoke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "gone", "7")
    program(tmp_path, "squeue", "exit 0", monkeypatch)
    row = run_status(run)
    assert row.state == "lost"
    assert row.seconds == pytest.approx(1800 - 90, abs=5)


def test_a_checkpoint_that_a_newer_one_replaces_meanwhile_has_no_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "base", "7")
    program(tmp_path, "squeue", f"echo '{line('7', 'RUNNING')}'", monkeypatch)
    monkeypatch.setattr(store, "latest", lambda checkpoints: checkpoints / "step_00000100")  # keep = 1 removed it
    row = run_status(run)
    assert (row.state, row.checkpoint, row.checkpoint_age_s) == ("running", "step_00000100", None)
    assert "| step_00000100 |" in to_markdown([row])


def test_a_trained_run_evaluates_only_if_it_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "squeue", f"echo '{line('7', 'RUNNING')}'", monkeypatch)
    states = {}
    for separate, at_end in ((None, "false"), (None, "true"), ("8", "false")):
        run = make_run(tmp_path / f"{separate}-{at_end}", "7", "trained", evaluation=separate)
        (run / "config.toml").write_text(
            'name = "r"\ndata = { path = "d", global_tokens = 2048, micro_tokens = 2048 }\ntrain = { steps = 1000 }\n'
            f"evaluate = {{ at_end = {at_end} }}\n"
        )
        states[separate, at_end] = run_status(run).state
    assert list(states.values()) == ["trained", "evaluating", "evaluating"]


def test_a_trained_run_is_finished_once_it_was_evaluated_at_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "squeue", f"echo '{line('7', 'FAILED')}'", monkeypatch)
    run = make_run(tmp_path / "r", "7")
    recorded = {"state": "trained", "step": 1000, "steps": 1000, "time": time.time(), "reason": "no memory"}
    (run / "state.json").write_text(json.dumps(recorded))
    (run / "results").mkdir()
    for steps, state, reason in ((900, "trained", "no memory"), (1000, "finished", None)):
        (run / "results" / "results.json").write_text(json.dumps({"training": {"steps_done": steps}}))
        status = run_status(run)
        assert (status.state, status.reason, has_succeeded(run, status)) == (state, reason, state == "finished")
    assert status.is_done(1000)
    assert not has_succeeded(run, RunStatus("r", "failed", False))
    program(tmp_path, "squeue", "exit 1", monkeypatch)
    assert run_status(run).state == "trained"  # its job may still be evaluating


def test_a_waiting_run_says_when_slurm_expects_to_start_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "base", "7")
    soon = datetime.now().replace(microsecond=0) + timedelta(minutes=5)
    program(tmp_path, "squeue", f"echo '{line('7', 'PENDING', 'Priority', starts=soon.isoformat())}'", monkeypatch)
    row = run_status(run)
    assert (row.state, row.starts_at) == ("queued", soon.timestamp())
    assert f"queued, starts ~{soon:%H:%M}" in to_markdown([row])


def test_a_hundred_runs_are_told_in_a_second_by_one_call_of_squeue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        make_run(tmp_path / "runs" / f"r{number:03d}", f"{1000 + number}")
    answers = "\n".join(line(str(1000 + number), "RUNNING", nodes="gpu01") for number in range(100))
    (tmp_path / "answers").write_text(answers + "\n")
    calls = tmp_path / "calls"
    program(tmp_path, "squeue", f"echo x >>{calls}; cat {tmp_path / 'answers'}", monkeypatch)
    output, seconds = quickest([sys.executable, "-m", "bigchem", "status", tmp_path / "runs"], times=2)
    assert output.count("running") == 100
    assert calls.read_text().count("x") == 2
    assert seconds < 1.5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("exit 1", "squeue ended with exit code 1"),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", "Unable to contact"),
        ("sleep 60", "has not answered"),
    ],
)
def test_a_controller_that_is_down_gives_what_the_folder_says_and_how_old_that_is(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, reason: str
) -> None:
    monkeypatch.setattr(squeue, "TIMEOUT_S", 0.2)
    config = config_of(tmp_path, small_data, "far")
    (make_run(config.run_dir, "7") / "config.toml").write_text(toml.dump(config))
    program(tmp_path, "squeue", answer, monkeypatch)
    row = run_status(config.run_dir)
    assert (row.state, row.active, row.step) == ("running", None, 250)
    assert reason in str(row.reason)
    assert "the run last reported running" in str(row.reason)
    assert 90 <= (row.state_age_s or 0) < 150
    with pytest.raises(UserError, match="cannot tell whether job 7 still runs"):
        submit(config, load_profile("local"))


def test_a_job_that_slurm_has_forgotten_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "gone", "7")
    program(tmp_path, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", monkeypatch)
    assert (run_status(run).state, run_status(run).active) == ("lost", False)


DAMAGE = {
    "state.json": b"\0" * 200,
    "owner.json": b'{"token": "x", "exec',
    "history.jsonl": b'{"attempt": "many"}\n\0\0\0',
    "attempt.json": b"\xff\xfe{}",
    "metrics.jsonl": b'{"step": 4, "loss": "[red]x", "tokens_per_s": 0}\n\0\0\0\0{"st',
    "model.json": b"[]",
    "cancel.json": b'{"job": "7", "time": "yesterday"}',
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_hundred_runs_are_shown_though_one_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for number in range(100):
        make_run(tmp_path / f"r{number:03d}", f"{1000 + number}")
    (tmp_path / "r042" / name).write_bytes(DAMAGE[name])
    answers = "\n".join(line(str(1000 + number), "RUNNING", nodes="gpu01") for number in range(100))
    program(tmp_path, "squeue", f"echo '{answers}'", monkeypatch)
    rows = all_runs([tmp_path])
    assert sum(row.state == "running" for row in rows) >= 99
    hurt = rows[42]
    assert hurt.run == "r042"
    if name == "owner.json":
        assert (hurt.state, hurt.active) == ("unreadable", None)
        assert "not JSON" in str(hurt.reason)
    elif name in ("state.json", "history.jsonl", "attempt.json", "metrics.jsonl"):
        assert name in str(hurt.damage)
    shown = to_markdown(rows)
    assert shown.count("\n") == 102


def test_what_runs_say_of_themselves_is_no_markup_and_moves_no_cursor(tmp_path: Path) -> None:
    run = make_run(tmp_path / "[bold]x", "7", executor="local")
    content = {"state": "failed", "time": 1.0, "reason": "[link=http://x]\x1b[2J<b>|\n[/]", "end": "error"}
    (run / "state.json").write_text(json.dumps(content))
    rows = all_runs([run])
    console = Console(width=400, file=io.StringIO(), force_terminal=True)
    console.print(table(rows))
    assert "[bold]x" in console.file.getvalue()
    assert "[link=http://x]" in console.file.getvalue()
    assert "\x1b[2J" not in console.file.getvalue()
    assert "&lt;b>\\| [/]" in to_markdown(rows)


AGAIN = {"end": "preempted", "reason": "USR2"}
LOST = {"end": "lost rank", "reason": "r"}


@pytest.mark.parametrize(
    ("state", "cancelled", "job", "found"),
    [
        ({"state": "prepared"}, None, Liveness(True, waits=True, why="Priority"), ("queued", "Priority")),
        ({"state": "prepared"}, None, Liveness(True), ("starting", None)),
        ({"state": "running"}, None, Liveness(True, waits=True, why="BeginTime"), ("queued", "BeginTime")),
        ({"state": "running"}, None, Liveness(True), ("running", None)),
        ({"state": "stopped", **AGAIN}, None, Liveness(True), ("starting", "USR2")),
        ({"state": "stopped", "reason": "SIGINT"}, None, Liveness(True), ("stopping", "SIGINT")),
        ({"state": "failed", **LOST}, None, Liveness(True), ("starting", "r")),
        ({"state": "failed", "reason": "r"}, None, Liveness(True), ("failed", "r")),
        ({"state": "failed", "reason": "r"}, None, Liveness(False), ("failed", "r")),
        ({"state": "finished"}, None, Liveness(None, why="down"), ("finished", None)),
        (
            {"state": "running"},
            None,
            Liveness(None, why="down"),
            ("running", "down; the run last reported running"),
        ),
        ({"state": "running"}, "ada", Liveness(True), ("stopping", "cancelled by ada")),
        ({"state": "stopped"}, "ada", Liveness(False), ("cancelled", "by ada")),
        ({"state": "running"}, None, Liveness(False, why="TIMEOUT"), ("lost", "its job is gone: TIMEOUT")),
        ({"state": "prepared"}, None, Liveness(owned=False), ("prepared", None)),
    ],
)
def test_a_state_is_told_with_its_reason(
    state: dict[str, Any], cancelled: str | None, job: Liveness, found: tuple[str, str | None]
) -> None:
    assert _state_and_reason(state, job, cancelled) == found


def test_squeues_lines_are_read_and_others_left() -> None:
    text = "\n".join(
        [
            line("12", "PENDING", "Resources", starts="2026-11-29T14:05:12"),
            line("13_4", "RUNNING", nodes="gpu[01-02,07]", restarts=2),
            line("14", "OUT_OF_MEMORY", "OutOfMemory"),
            "slurm_load_jobs: a warning",
        ]
    )
    jobs = squeue.parsed(text)
    assert jobs == {
        "12": squeue.Job("PENDING", "Resources", starts=datetime(2026, 11, 29, 14, 5, 12).timestamp()),
        "13_4": squeue.Job("RUNNING", None, "gpu[01-02,07]", 2),
        "14": squeue.Job("OUT_OF_MEMORY", "OutOfMemory"),
    }
    assert (jobs["12"].waits, jobs["13_4"].waits, jobs["14"].gone) == (True, False, True)


def test_without_jobs_slurm_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert squeue.ask([]) == squeue.Queue()
    assert "No such file" in str(squeue.ask(["1"]).trouble)


def test_runs_and_folders_of_runs_can_be_named_together(tmp_path: Path) -> None:
    for path in (tmp_path / "runs" / "a", tmp_path / "runs" / "b", tmp_path / "c"):
        path.mkdir(parents=True)
        (path / "config.toml").write_text("")
    assert [row.run for row in all_runs([tmp_path / "c", tmp_path / "runs"])] == ["c", "a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no runs here"):
        all_runs([tmp_path / "runs", tmp_path / "empty"])


def test_of_two_submissions_at_once_one_is_made(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sbatch is a stand-in that takes half a second: without the lock both would call it."""
    config = config_of(tmp_path / "runs", small_data, "twice")
    (tmp_path / "run.toml").write_text(toml.dump(config))
    calls = tmp_path / "calls"
    program(tmp_path, "sbatch", f"sleep 0.5; echo x >>{calls}; echo Submitted batch job 7", monkeypatch)
    program(tmp_path, "srun", "", monkeypatch)
    program(tmp_path, "squeue", f"test -e {calls} && echo '{line('7', 'PENDING', 'Priority')}'; exit 0", monkeypatch)
    (tmp_path / "mine.toml").write_text('executor = "slurm"\n')
    words = [sys.executable, "-m", "bigchem", "submit", tmp_path / "run.toml", "--cluster", tmp_path / "mine.toml"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    notes = sorted(p.communicate(timeout=60)[0].split(": ", 1)[1].strip() for p in both)
    assert notes == ["already queued as job 7: nothing to do", "submitted as job 7"]
    assert calls.read_text().count("x") == 1


def test_a_run_that_was_never_submitted_is_not_resumed_without_a_profile(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        resume(tmp_path, ClusterProfile(executor="local"))
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(UserError, match="no cluster profile"):
        resume(tmp_path, None)
