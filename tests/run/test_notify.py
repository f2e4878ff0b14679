"""Notifications of a run's end, failure or stall: by a real command and a real HTTP server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_server import Server, serving
from owners import owned
from runs import config_of

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import NotifyConfig, RunConfig
from bigchem.run import notify
from bigchem.run.lifecycle import ENDS, End
from bigchem.run.state import write_state

COMMAND = """
import json, os, sys
names = ("BIGCHEM_RUN", "BIGCHEM_EVENT", "BIGCHEM_STATE", "BIGCHEM_REASON")
row = {"message": json.load(sys.stdin), **{name: os.environ[name] for name in names}}
open(sys.argv[1], "a").write(json.dumps(row) + "\\n")
"""
URL = "TEST_WEBHOOK_OF_BIGCHEM"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(tmp_path) as server:
        monkeypatch.setenv(URL, f"{server.url}/hook")
        monkeypatch.setenv("no_proxy", "*")
        yield server


def run_of(tmp_path: Path, **table: Any) -> RunConfig:
    """A run that notifies by command and webhook."""
    command = [sys.executable, "-c", COMMAND, str(tmp_path / "received.jsonl")]
    config = config_of(tmp_path / "runs", tmp_path, "base", notify={"command": command, "webhook_env": URL, **table})
    config.run_dir.mkdir(parents=True)
    (config.run_dir / "config.toml").write_text(toml.dump(config))
    owned(config.run_dir, "7")
    return config


def received(tmp_path: Path) -> list[dict[str, Any]]:
    file = tmp_path / "received.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


@pytest.mark.parametrize(
    ("end", "more", "event"),
    [
        (End.FINISHED, {}, "end"),
        (End.STOPPED, {}, "end"),
        (End.TRAINED, {}, "end"),
        (End.TRAINED, {"reason": "not evaluated: x"}, "failure"),
        (End.ERROR, {}, "failure"),
        (End.MISTAKE, {}, "failure"),
        (End.NOT_LAUNCHED, {}, "failure"),
        (End.PREEMPTED, {}, None),
        (End.TIME_LIMIT, {}, None),
        (End.LOST_RANK, {}, None),
        (End.KILLED, {}, None),
        (End.PREEMPTED, {"given_up": True}, "failure"),
        (End.KILLED, {"given_up": True}, "failure"),
        (End.HUNG, {}, "stall"),
        (End.HUNG, {"given_up": True}, "failure"),
    ],
)
def test_what_is_told_of_an_end(end: End, more: dict[str, Any], event: str | None) -> None:
    assert notify.event_of({"state": ENDS[end].state, "end": end, **more}) == event


def test_a_run_that_goes_on_or_is_evaluated_later_is_not_told() -> None:
    assert notify.event_of({"state": "running", "step": 3}) is None
    assert notify.event_of({"state": "new"}) is None
    assert notify.event_of({"state": "trained", "end": "trained"}, evaluated_later=True) is None


def test_a_failure_is_told_once_to_the_command_and_the_webhook(tmp_path: Path, server: Server) -> None:
    config = run_of(tmp_path)
    write_state(config.run_dir, "failed", step=14, steps=60, end="error", reason="ValueError: x; `rm -rf`")
    for _ in range(3):  # like ranks that fail together, and the batch script after them
        notify.send(config.run_dir)
    text = "base has failed, step 14 of 60, job 7: ValueError: x; `rm -rf`"
    assert [json.loads(body) for _, body in server.posted] == [{"text": text}]
    (row,) = received(tmp_path)
    message = row.pop("message")
    assert {**message, "host": "", "time": 0} == {
        "text": text,
        "event": "failure",
        "run": "base",
        "run_dir": str(config.run_dir),
        "state": "failed",
        "reason": "ValueError: x; `rm -rf`",
        "step": 14,
        "steps": 60,
        "job": "7",
        "host": "",
        "time": 0,
    }
    assert (row["BIGCHEM_EVENT"], row["BIGCHEM_STATE"], row["BIGCHEM_REASON"]) == (
        *("failure", "failed"),
        message["reason"],
    )
    owned(config.run_dir, "8")  # submitted again, it fails again
    notify.send(config.run_dir)
    assert [row["message"]["job"] for row in received(tmp_path)] == ["7", "8"]
    assert server.url not in "".join(path.read_text() for path in config.run_dir.rglob("*") if path.is_file())


def test_what_was_not_asked_for_is_not_told(tmp_path: Path, server: Server) -> None:
    config = run_of(tmp_path, on=["failure"])
    write_state(config.run_dir, "finished", step=60, steps=60, end="finished")
    notify.send(config.run_dir)
    assert (received(tmp_path), server.posted) == ([], [])


def test_a_command_and_a_server_that_fail_are_an_event_and_cost_nothing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_of(tmp_path, command=["false"])
    server.faults["hook"] = ["503"]
    write_state(config.run_dir, "finished", step=60, steps=60, end="finished")
    notify.send(config.run_dir)
    lines = (config.run_dir / "notified" / "log").read_text().splitlines()
    assert lines == ["end not sent: false ended with exit code 1", "end not sent: webhook: 503 Service Unavailable"]
    events = [json.loads(line) for line in (config.run_dir / "events.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["action"]) for row in events] == [("notify", "end not sent")] * 2
    assert notify.deliver(
        NotifyConfig(command=("/no/such/program",)),
        {"text": ""} | dict.fromkeys(("run_dir", "event", "state", "reason"), ""),
    ) == ["/no/such/program: No such file or directory"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/secret", "http://127.0.0.1:9/a secret", "http://secret:x/"])
def test_a_url_that_does_not_work_is_not_quoted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(URL, url)
    (failure,) = notify.deliver(NotifyConfig(webhook_env=URL), {"text": "x"})
    assert failure.startswith("webhook: ")
    assert "secret" not in failure


def test_a_server_that_does_not_answer_holds_nobody_up(tmp_path: Path, server: Server) -> None:
    config = run_of(tmp_path, command=["sleep", "60"])
    server.faults["hook"] = ["stall"]
    write_state(config.run_dir, "finished", step=60, steps=60, end="finished")
    begun = time.monotonic()
    notify.send(config.run_dir, 0.0)
    assert time.monotonic() - begun < 2
    notify.send(config.run_dir)  # already sent, as far as this caller knows


def test_a_run_without_a_folder_or_owner_tells_nothing_and_raises_nothing(tmp_path: Path) -> None:
    notify.send(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_stall_is_told_once_for_a_step(tmp_path: Path, server: Server) -> None:
    config = run_of(tmp_path, stall_s=30.0)
    write_state(config.run_dir, "running", step=5, steps=60)
    stall = notify.StallNotifier(config.run_dir, config.notify)
    for step, now in [(5, 0), (5, 29), (6, 31), (6, 60), (6, 62), (6, 90), (7, 91)]:
        stall.check(step, float(now))
    deadline = time.monotonic() + 30
    while not received(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [row["message"]["text"] for row in received(tmp_path)] == [
        "base hangs, step 6 of 60, job 7: no step for 31 s"
    ]


def test_what_cannot_be_told_is_refused_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)
    with pytest.raises(UserError, match="no such program: nothing-of-that-name"):
        notify.check(NotifyConfig(command=("nothing-of-that-name",)))
    for value in ("", "file:///etc/passwd"):
        monkeypatch.setenv(URL, value)
        with pytest.raises(UserError, match=r"holds no http\(s\) URL"):
            notify.check(NotifyConfig(webhook_env=URL))
    with pytest.raises(UserError, match="the name of a variable, not the URL"):
        toml.validate(RunConfig, {"notify": {"webhook_env": "https://hooks.example.org/x"}}, "run.toml")
    notify.check(NotifyConfig())
