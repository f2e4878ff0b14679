"""Waiting for something, with a limit: what did not come is the failure's message."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bigchem.launch.runs.status import RunStatus, run_status


def until(true: Callable[[], object], what: object, timeout_s: float = 300) -> None:
    """Waits until something is true. what: the message if it does not come true, or a function that makes it."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.1)


def until_run(run_dir: Path, true: Callable[[RunStatus], bool], timeout_s: float = 120) -> RunStatus:
    """Waits until a run's status is as wanted; that status."""
    deadline = time.monotonic() + timeout_s
    while not true(status := run_status(run_dir)):
        assert time.monotonic() < deadline, status
        time.sleep(0.3)
    return status
