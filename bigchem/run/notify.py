"""Messages to people when a run ends, fails or stands still: [notify] of the run configuration.

A message is sent by a process of its own, which training does not wait for and which ends by itself. A file in the run
folder's notified/ is made before it is sent, so that several ranks, or the batch script after them, send it once.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import NotifyConfig, RunConfig
from bigchem.run import ownership
from bigchem.run.lifecycle import End, State, end_of, is_restarted
from bigchem.run.log_files import Rows
from bigchem.run.state import read_state

Event = Literal["end", "failure", "stall"]
LIMIT_S = 10.0
"""That a command or a server may take."""
WAIT_S = 2 * LIMIT_S + 5.0
"""For the process that sends, where Slurm would end it together with the caller."""
RANK_WAIT_S = 5.0
"""The same in a rank: the others may stand in a collective operation until it has left."""
SENT = "notified"


def check(config: NotifyConfig) -> None:
    """UserError if the command or the variable with the URL is not there."""
    if config.command and shutil.which(config.command[0]) is None:
        raise UserError(f"no such program: {config.command[0]}", "notify.command", "give its path")
    if config.webhook_env is not None and _url(config.webhook_env) is None:
        what = f"the variable {config.webhook_env} holds no http(s) URL"
        raise UserError(what, "notify.webhook_env", f"export {config.webhook_env}=https://... before you submit")


def event_of(state: Mapping[str, Any], *, evaluated_later: bool = False) -> Event | None:
    """What state.json gives to tell. None while the run goes on: a requeue is no news, but for a hang. Pure.

    evaluated_later: training is not the last of the run.
    """
    how = end_of(state)
    if how is None:
        return None
    if is_restarted(state):
        return "stall" if how is End.HUNG else None
    if state["state"] == State.TRAINED and not state.get("reason"):
        return None if evaluated_later else "end"
    failed = state["state"] in (State.FAILED, State.TRAINED) or state.get("given_up")
    return "failure" if failed else "end"


def message_of(run_dir: Path, event: Event, state: Mapping[str, Any], job: str | None) -> dict[str, Any]:
    """The message: `text` for a person, and its parts. Pure."""
    reason = str(state.get("reason") or state.get("early") or "")
    verb = {"end": f"is {state['state']}", "failure": "has failed", "stall": "stands still"}[event]
    at = f"step {state.get('step', 0)} of {state['steps']}" if "steps" in state else ""
    text = ", ".join(part for part in (f"{run_dir.name} {verb}", at, f"job {job}" if job else "") if part)
    return {
        "text": f"{text}: {reason}" if reason else text,
        "event": event,
        "run": run_dir.name,
        "run_dir": str(run_dir),
        "state": str(state["state"]),
        "reason": reason,
        "step": state.get("step", 0),
        "steps": state.get("steps"),
        "job": job,
        "host": socket.gethostname(),
        "time": time.time(),
    }


def send(run_dir: Path, wait_s: float = WAIT_S) -> None:
    """Tells what state.json gives to tell, if nobody has and the configuration asks for it. Never raises.

    wait_s: most that this waits for the message to be sent: the caller is about to end, and Slurm would end the sender
    with it.
    """
    with suppress(OSError, UserError, ValueError):
        config, owner = toml.load(RunConfig, run_dir / "config.toml"), ownership.read(run_dir)
        later = config.evaluate.at_end or bool(owner and owner.evaluation)
        state = read_state(run_dir)
        event = event_of(state, evaluated_later=later)
        if event is None or not _wanted(config.notify, event):
            return
        token = owner.token.replace("/", "_") if owner else "nobody"
        if _first(run_dir / SENT / f"{event}-{state['end']}-{token}".replace(" ", "_")):
            _send(run_dir, message_of(run_dir, event, state, owner.job if owner else None), wait_s)


def send_from_rank(run_dir: Path) -> None:
    """The same from a rank, where no batch script of bigchem's does so when all ranks have ended."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        send(run_dir, RANK_WAIT_S if "SLURM_JOB_ID" in os.environ else 0.0)


class StallNotifier:
    """Tells, once for each step, that a run does none. Rank 0 asks it to look."""

    def __init__(self, run_dir: Path, config: NotifyConfig) -> None:
        self._run_dir, self._wanted = run_dir, _wanted(config, "stall")
        self._stall_s = config.stall_s
        self._step, self._since, self._told = -1, 0.0, False

    def look(self, step: int, now: float) -> None:
        """step: steps done. now: seconds of the process's own time."""
        if step != self._step:
            self._step, self._since, self._told = step, now, False
        stands_s = now - self._since
        if not self._wanted or not self._stall_s or self._told or stands_s < self._stall_s:
            return
        self._told = True
        with suppress(OSError, UserError, ValueError):
            state = {**read_state(self._run_dir), "step": step, "reason": f"no step for {stands_s:.0f} s"}
            owner = ownership.read(self._run_dir)
            _send(self._run_dir, message_of(self._run_dir, "stall", state, owner.job if owner else None), 0.0)


def deliver(config: NotifyConfig, message: Mapping[str, Any]) -> list[str]:
    """Runs the command and calls the webhook; what went wrong, a line each."""
    troubles = []
    if config.command:
        troubles += _command(config.command, message)
    if config.webhook_env is not None:
        troubles += _post(_url(config.webhook_env), str(message["text"]))
    return troubles


def _wanted(config: NotifyConfig, event: Event) -> bool:
    return event in config.on and bool(config.command or config.webhook_env)


def _first(marker: Path) -> bool:
    """Whether this caller is the first."""
    marker.parent.mkdir(exist_ok=True)
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _send(run_dir: Path, message: Mapping[str, Any], wait_s: float) -> None:
    command = [sys.executable, "-m", "bigchem.run.notify", str(run_dir)]
    (run_dir / SENT).mkdir(exist_ok=True)
    with (run_dir / SENT / "log").open("ab") as log:
        sender = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
    if sender.stdin is not None:
        with sender.stdin as to:
            to.write(json.dumps(message).encode())
    if wait_s:
        with suppress(subprocess.TimeoutExpired):
            sender.wait(wait_s)


def _command(command: tuple[str, ...], message: Mapping[str, Any]) -> list[str]:
    names = {"BIGCHEM_RUN": "run_dir", "BIGCHEM_EVENT": "event", "BIGCHEM_STATE": "state", "BIGCHEM_REASON": "reason"}
    env = {**os.environ, **{name: str(message[key]).replace("\0", "") for name, key in names.items()}}
    try:
        done = subprocess.run(
            command, input=json.dumps(message).encode(), env=env, capture_output=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return [f"{command[0]} did not end within {LIMIT_S:.0f} s"]
    except OSError as error:
        return [f"{command[0]}: {error.strerror}"]
    if done.returncode == 0:
        return []
    words = done.stderr.decode(errors="replace").strip().splitlines()
    return [f"{command[0]} ended with exit code {done.returncode}" + (f": {words[-1]}" if words else "")]


def _post(url: str | None, text: str) -> list[str]:
    """A JSON object with `text`, as Slack and Mattermost take it. What is said of a failure does not hold the URL."""
    if url is None:
        return ["webhook: its variable holds no http(s) URL"]
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - see _url
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S):  # noqa: S310
            return []
    except urllib.error.HTTPError as error:
        return [f"webhook: {error.code} {error.reason}"]
    except urllib.error.URLError as error:
        return [f"webhook: {error.reason}"]
    except (OSError, ValueError) as error:
        return [f"webhook: {type(error).__name__}"]


def _url(name: str) -> str | None:
    """The URL that a variable holds."""
    url = os.environ.get(name, "")
    return url if urlsplit(url).scheme in ("http", "https") else None


def main(run_dir: Path) -> int:
    """Sends the message that comes through stdin. What goes wrong is an event of the run."""
    message = json.loads(sys.stdin.read())
    troubles = deliver(toml.load(RunConfig, run_dir / "config.toml").notify, message)
    action = f"{message['event']} not told"
    row = {"time": time.time(), "step": message["step"], "kind": "notify", "action": action, "keys": []}
    for trouble in troubles:
        print(f"{action}: {trouble}", flush=True)
        Rows(run_dir / "events.jsonl").add({**row, "detail": trouble})  # not by events.py, which imports torch
    return int(bool(troubles))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
