"""Notifications when a run ends, fails or hangs: [notify] of the run configuration.

A separate process sends a message, and training does not wait for it. A marker file in the run folder's notified/ comes
first, so several ranks, or the batch script after them, send it only once.
"""

import http.client
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
from bigchem.run.log_files import record_event
from bigchem.run.state import read_state

Event = Literal["end", "failure", "stall"]
LIMIT_S = 10.0
"""Timeout of the command, and of the server."""
WAIT_S = 2 * LIMIT_S + 5.0
"""Wait for the sending process where Slurm would end it together with the caller."""
RANK_WAIT_S = 5.0
"""The same in a rank: its peers may be blocked in a collective operation until it exits."""
SENT = "notified"


def check(config: NotifyConfig) -> None:
    """UserError if the command, or the URL's variable, does not exist."""
    if config.command and shutil.which(config.command[0]) is None:
        raise UserError(f"no such program: {config.command[0]}", "notify.command", "give its path")
    if config.webhook_env is not None and _url(config.webhook_env) is None:
        what = f"the variable {config.webhook_env} holds no http(s) URL"
        raise UserError(what, "notify.webhook_env", f"export {config.webhook_env}=https://... before you submit")


def event_of(state: Mapping[str, Any], *, evaluated_later: bool = False) -> Event | None:
    """The event to report for state.json; None while the run continues: of requeues only hangs are reported. Pure.

    evaluated_later: the run's evaluation follows training.
    """
    end = end_of(state)
    if end is None:
        return None
    if is_restarted(state):
        return "stall" if end is End.HUNG else None
    if state["state"] == State.TRAINED and not state.get("reason"):
        return None if evaluated_later else "end"
    failed = state["state"] in (State.FAILED, State.TRAINED) or state.get("given_up")
    return "failure" if failed else "end"


def message_of(run_dir: Path, event: Event, state: Mapping[str, Any], job: str | None) -> dict[str, Any]:
    """The message: `text` to read, and its parts. Pure."""
    reason = str(state.get("reason") or state.get("early") or "")
    verb = {"end": f"is {state['state']}", "failure": "has failed", "stall": "hangs"}[event]
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
    """Sends the notification for state.json, if it is configured and not yet sent. Never raises.

    wait_s: maximum wait for the sending process: the caller is about to exit, and Slurm would end the sender with it.
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
    """`send` from a rank, unless bigchem's batch script does so after all ranks have ended."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        send(run_dir, RANK_WAIT_S if "SLURM_JOB_ID" in os.environ else 0.0)


class StallNotifier:
    """Reports, once per step, that a run makes no progress. Rank 0 calls `check` regularly."""

    def __init__(self, run_dir: Path, config: NotifyConfig) -> None:
        self._run_dir, self._wanted = run_dir, _wanted(config, "stall")
        self._stall_s = config.stall_s
        self._step, self._since, self._sent = -1, 0.0, False

    def check(self, step: int, now: float) -> None:
        """step: steps done. now: seconds on the process's clock."""
        if step != self._step:
            self._step, self._since, self._sent = step, now, False
        stalled_s = now - self._since
        if not self._wanted or not self._stall_s or self._sent or stalled_s < self._stall_s:
            return
        self._sent = True
        with suppress(OSError, UserError, ValueError):
            state = {**read_state(self._run_dir), "step": step, "reason": f"no step for {stalled_s:.0f} s"}
            owner = ownership.read(self._run_dir)
            _send(self._run_dir, message_of(self._run_dir, "stall", state, owner.job if owner else None), 0.0)


def deliver(config: NotifyConfig, message: Mapping[str, Any]) -> list[str]:
    """Runs the command and calls the webhook; returns their failures, a line each."""
    failures = []
    if config.command:
        failures += _command(config.command, message)
    if config.webhook_env is not None:
        failures += _post(_url(config.webhook_env), str(message["text"]))
    return failures


def _wanted(config: NotifyConfig, event: Event) -> bool:
    return event in config.on and bool(config.command or config.webhook_env)


def _first(marker: Path) -> bool:
    """Whether this is the first call."""
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
        return [f"{command[0]} did not finish within {LIMIT_S:.0f} s"]
    except OSError as error:
        return [f"{command[0]}: {error.strerror}"]
    if done.returncode == 0:
        return []
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return [f"{command[0]} ended with exit code {done.returncode}" + (f": {lines[-1]}" if lines else "")]


def _post(url: str | None, text: str) -> list[str]:
    """Posts a JSON object with `text`, the format of Slack and Mattermost. Failures never quote the URL."""
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
    except (OSError, ValueError, http.client.HTTPException) as error:  # InvalidURL quotes its path
        return [f"webhook: {type(error).__name__}"]


def _url(name: str) -> str | None:
    """The URL that a variable holds."""
    url = os.environ.get(name, "")
    return url if urlsplit(url).scheme in ("http", "https") else None


def main(run_dir: Path) -> int:
    """Sends the message on stdin. Failures become events of the run."""
    message = json.loads(sys.stdin.read())
    failures = deliver(toml.load(RunConfig, run_dir / "config.toml").notify, message)
    action = f"{message['event']} not sent"
    for failure in failures:
        print(f"{action}: {failure}", flush=True)
        record_event(run_dir, message["step"], "notify", action, failure)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
