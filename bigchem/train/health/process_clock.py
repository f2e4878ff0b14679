"""Seconds that this process has run: those in which it was stopped do not count.

Slurm suspends a job by stopping its processes (`scontrol suspend`, gang scheduling), and CLOCK_MONOTONIC goes on
meanwhile. A thread that ticks finds a gap then, in which the main thread used no processor either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LATE_S = 1.0
"""That a tick may come late on a busy machine."""


def _main_cpu() -> float:
    return time.clock_gettime(time.pthread_getcpuclockid(threading.main_thread().ident or 0))


class ProcessClock:
    """Called, it gives seconds since it was made, of this process's own time.

    every_s: between two ticks. now: a clock that goes on while the process is stopped. cpu: processor seconds of the
    main thread, which may keep the ticking one waiting, as it computes with the interpreter's lock held.
    """

    def __init__(
        self, every_s: float, now: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = _main_cpu
    ) -> None:
        self._every_s, self._now, self._cpu = every_s, now, cpu
        self._longest_s = 2 * every_s + LATE_S
        self._last = (now(), 0.0)  # tick: when it came, and this clock's time then; one assignment, as threads read it
        self._used = cpu()
        self.stopped_s = 0.0
        """Seconds in which the process was stopped."""

    def tick(self) -> None:
        """To be called every `every_s` seconds, always by the same thread."""
        (ticked, own), now, used = self._last, self._now(), self._cpu()
        gap, busy = now - ticked, used - self._used
        stopped = gap - self._every_s if gap > self._longest_s and busy < gap / 2 else 0.0
        self.stopped_s += stopped
        self._last, self._used = (now, own + gap - stopped), used

    def __call__(self) -> float:
        ticked, own = self._last
        return own + min(self._now() - ticked, self._longest_s)  # more is not believed before the next tick
