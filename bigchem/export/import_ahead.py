"""Imports transformers in a thread, while the weights are read, hashed and written."""

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

TURN_S = 5e-4
"""A thread that wants the GIL waits for as long; Python's default is ten times that."""


def import_ahead() -> Future[ModuleType]:
    """Starts the import of transformers' T5: three seconds."""
    pool = ThreadPoolExecutor(1)
    importing = pool.submit(import_module, "transformers.models.t5.modeling_t5")
    pool.shutdown(wait=False)
    return importing


@contextmanager
def short_turns() -> Iterator[None]:
    """Lets the importing thread hold the GIL for only TURN_S at a time.

    The threads that read, hash and write need it for a moment about ten times per piece. With Python's default they
    would wait for most of the import.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
