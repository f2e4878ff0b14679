"""How a process of a run exits: the exit codes of `bigchem train`, and exiting at once."""

import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from bigchem.run.lifecycle import ENDS, end_of, exit_code

T = TypeVar("T")


def exit_code_after(state: Mapping[str, Any], requeue: Callable[[bool], int]) -> int:
    """Exit code of a rank that ends because others did. state: state.json, where they may have recorded why. requeue:
    see train.health.watchdog.Watchdog."""
    end = end_of(state)
    if end is None or ENDS[end].again:
        return requeue(False)
    return exit_code(end)


def exit_now(code: int) -> NoReturn:
    """Ends this process without cleaning up: destructors of a process group that another rank has left, or whose
    operations never finish, hang or abort with another exit code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def connection_lost(error: BaseException) -> str | None:
    """A description, if an error means that the connection to another rank broke; else None.

    gloo raises RuntimeErrors with its source file in the text; NCCL and the store have their own classes.
    """
    from torch import distributed as dist

    classes = (ConnectionError, dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, classes) and not (isinstance(error, RuntimeError) and "gloo" in text):
        return None
    return re.sub(r"^\[[^\]]*\] *", "", text.splitlines()[0]).split(". ")[0]


def call_with_timeout(seconds: float, call: Callable[[], T]) -> T | None:
    """The result of a call to a store, a driver or a disk; None if it fails or takes longer. For a process that is
    about to exit."""
    results: list[T] = []

    def run() -> None:
        with suppress(Exception):
            results.append(call())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=seconds)
    return results[0] if results else None
