"""How a process of a run leaves: the exit codes of `bigchem train`, and leaving at once."""

from __future__ import annotations

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
    """Exit code of a rank that ends because others did. state: what state.json says, where they may have left word why.
    requeue: see train.watchdog.Watchdog."""
    how = end_of(state)
    if how is None or ENDS[how].again:
        return requeue(False)
    return exit_code(how)


def exit_now(code: int) -> NoReturn:
    """Ends this process now. Nothing is taken down: the destructors of a process group that another rank has left, or
    whose operations will never end, wait without end or abort with a code of their own."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def connection_lost(error: BaseException) -> str | None:
    """In words, if an error says that the connection to another rank broke; else None.

    gloo raises RuntimeErrors with its own source file in the text, NCCL and the store have classes of their own.
    """
    from torch import distributed as dist

    classes = (ConnectionError, dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, classes) and not (isinstance(error, RuntimeError) and "gloo" in text):
        return None
    return re.sub(r"^\[[^\]]*\] *", "", text.splitlines()[0]).split(". ")[0]


def call_with_timeout(seconds: float, ask: Callable[[], T]) -> T | None:
    """What a store, a driver or a disk answers; None if it does not in so many seconds, or with an error: to a process
    that is about to leave it is then as if it were not there."""
    answers: list[T] = []

    def quietly() -> None:
        with suppress(Exception):
            answers.append(ask())

    asker = threading.Thread(target=quietly, daemon=True)
    asker.start()
    asker.join(timeout=seconds)
    return answers[0] if answers else None
