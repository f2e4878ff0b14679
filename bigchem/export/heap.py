"""Returns freed memory to the system at once, with glibc."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_MAPPED_FROM = 128 * 1024
"""Bytes; glibc's initial threshold."""
_GREATEST = 32 * 1024 * 1024
"""Bytes; its largest dynamic threshold."""


@contextmanager
def return_freed_memory() -> Iterator[None]:
    """Maps blocks of 128 KiB and more, so that freeing returns them to the system. No effect with other C libraries.

    glibc raises that threshold to the size of each mapped block it frees, up to 32 MiB. Blocks of tens of megabytes,
    such as logits, then come from a heap that retains freed memory: 0.3 GB in t5-large's proof (docs/decisions.md).
    Afterwards both thresholds are where glibc would have moved them, but fixed.
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
