"""Freed memory goes back to the system at once, where the C library is glibc."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_MAPPED_FROM = 128 * 1024
"""Bytes; what glibc begins with."""
_GREATEST = 32 * 1024 * 1024
"""Bytes; what it goes up to by itself."""


@contextmanager
def return_freed_memory() -> Iterator[None]:
    """Blocks from 128 KiB on are mapped, so that they leave the process when freed. Other C libraries: nothing.

    glibc raises that size to that of every mapped block that is freed, up to 32 MiB; blocks of tens of megabytes, as
    logits, then come from a heap that keeps what is freed: 0.3 GB of t5-large's proof (docs/decisions.md). Afterwards
    both thresholds are where glibc would have brought them; it moves them no more.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _GREATEST)
        mallopt(_TRIM_THRESHOLD, 2 * _GREATEST)
