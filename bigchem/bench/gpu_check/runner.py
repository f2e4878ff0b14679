"""Runs one stage as a process of its own, so that a CUDA error or a hang ends neither the check nor other stages."""

import os
import signal
import subprocess
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TAIL = 20
"""Last lines of a failed stage that are kept."""
REAP_S = 5.0
"""How long to wait for a killed process; one that waits in the driver may not end at all."""


@dataclass(frozen=True)
class Outcome:
    """status: done, failed or killed (by its time limit). reason: why not done. tail: its last lines if not done."""

    status: str
    seconds: float
    reason: str = ""
    tail: tuple[str, ...] = ()


def run(command: Sequence[str], limit_s: float, show: Callable[[str], None], variables: Mapping[str, str]) -> Outcome:
    """Runs a command for at most `limit_s` seconds, passing each line it prints to `show` as it comes. variables: added
    to the environment."""
    begun, last = time.monotonic(), deque[str](maxlen=TAIL)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
        process_group=0,
    )
    assert process.stdout is not None  # noqa: S101  (for mypy)
    reader = threading.Thread(target=_read, args=(process.stdout, show, last), daemon=True)
    reader.start()
    try:
        code = process.wait(max(limit_s, 0.0))
    except subprocess.TimeoutExpired:
        code = None
    finally:
        _kill(process)
    reader.join(REAP_S)
    seconds = time.monotonic() - begun
    if code is None:
        return Outcome("killed", seconds, f"not done in its {limit_s:.0f} s", tuple(last))
    if code:
        reason = f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
        reason = f"{reason}: {last[-1]}" if last else reason
        return Outcome("failed", seconds, reason, tuple(last))
    return Outcome("done", seconds)


def _read(stream: IO[str], show: Callable[[str], None], last: deque[str]) -> None:
    for line in stream:
        last.append(line.rstrip())
        show(line.rstrip())


def _kill(process: subprocess.Popen[str]) -> None:
    """Ends the process and all that it has started."""
    end_family(process.pid)
    with suppress(subprocess.TimeoutExpired):
        process.wait(REAP_S)


def end_family(leader: int) -> None:
    """Kills the process that leads a group, the group, and all descendants: ninja's compilers have their own groups."""
    end_descendants(leader)
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def end_descendants(ancestor: int) -> None:
    """Kills what a running process has started."""
    for pid in descendants(ancestor):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants(ancestor: int) -> list[int]:
    """Process ids of what a running process has started, at any depth."""
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            pid, rest = path.parent.name, path.read_text().rpartition(")")[2]
            children[int(rest.split()[1])].append(int(pid))
    found, left = [], [ancestor]
    while left:
        more = children[left.pop()]
        found += more
        left += more
    return found
