"""Seconds that this process has run, without the time in which it was stopped.

Slurm suspends a job by stopping its processes (`scontrol suspend`, gang scheduling), while CLOCK_MONOTONIC continues. A
ticking thread then sees a gap in which the main thread used no CPU time either.
"""

import threading
import time
from collections.abc import Callable

LATE_S = 1.0
"""How late a tick may come on a busy machine."""


def _main_cpu() -> float:
    return time.clock_gettime(time.pthread_getcpuclockid(threading.main_thread().ident or 0))


class ProcessClock:
    """Call it for the seconds since its creation, in this process's own time.

    every_s: between ticks. now: a clock that continues while the process is stopped. cpu: CPU seconds of the main
    thread, which can delay ticks by computing with the GIL held.
    """

    def __init__(
        self, every_s: float, now: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = _main_cpu
    ) -> None:
        self._every_s, self._now, self._cpu = every_s, now, cpu
        self._longest_s = 2 * every_s + LATE_S
        self._last = (now(), 0.0)  # of the last tick: `now`, and this clock; a tuple, as other threads read it
        self._used = cpu()
        self.stopped_s = 0.0
        """Seconds for which the process was stopped."""

    def tick(self) -> None:
        """Call this every `every_s` seconds, always from the same thread."""
        (ticked, own), now, used = self._last, self._now(), self._cpu()
        gap, busy = now - ticked, used - self._used
        stopped = gap - self._every_s if gap > self._longest_s and busy < gap / 2 else 0.0
        self.stopped_s += stopped
        self._last, self._used = (now, own + gap - stopped), used

    def __call__(self) -> float:
        ticked, own = self._last
        return own + min(self._now() - ticked, self._longest_s)  # a longer gap counts only after the next tick
