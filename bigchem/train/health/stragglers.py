"""Warns of what slows a run down or will stop it: a slow rank, waiting for data, a nearly full disk.

Checked once per row of metrics, with one small all-gather. It only warns and takes no action.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import torch
import torch.distributed as dist

from bigchem.base.errors import UserError
from bigchem.config import HealthConfig, RunConfig
from bigchem.data.storage.remote import is_url
from bigchem.train.checkpoint import store
from bigchem.train.collectives import gathered
from bigchem.train.health import events

IN_A_ROW = 3
"""Consecutive slow intervals before a rank is reported."""
MIN_S = 5.0
"""Minimum seconds to judge together: over fewer it would report the machine's noise."""
REMEDY = "put data.path on a local disk"
REMEDY_REMOTE = "raise data.cache_gb, set data.shuffle_window, or put data.cache on a local disk"
MIN_SHARE = 0.05
"""Minimum share of an interval that a slow rank must lose: millisecond steps are all noise."""


class Warnings:
    """Decides what to warn of: each condition once until it clears. Pure."""

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        self._slow: dict[int, int] = {}
        self._reported: set[str] = set()

    def slow_ranks(self, busy_s: Sequence[float], interval_s: float) -> dict[int, float]:
        """Ranks to warn of, with their time as a multiple of the others' median.

        busy_s: seconds that each rank spent on its own in the interval: in forward passes and waiting for data.
        """
        found = {}
        for rank, seconds in enumerate(busy_s):
            others = [s for other, s in enumerate(busy_s) if other != rank]
            usual = statistics.median(others) if others else seconds
            slow = seconds > self._config.slow_rank * usual and seconds - usual > MIN_SHARE * interval_s
            self._slow[rank] = self._slow.get(rank, 0) + 1 if slow else 0
            if self._first(f"slow {rank}", self._slow[rank] >= IN_A_ROW):
                found[rank] = seconds / max(usual, 1e-9)
        return found

    def starved(self, wait_s: Sequence[float], interval_s: float) -> tuple[int, float] | None:
        """(rank that waited longest for data, its share of the interval), if that needs a warning."""
        rank = max(range(len(wait_s)), key=lambda r: wait_s[r])
        share = wait_s[rank] / max(interval_s, 1e-9)
        return (rank, share) if self._first("starved", share > self._config.starved) else None

    def disk(self, full: bool) -> bool:
        """Whether to warn that the next checkpoint may not fit."""
        return self._first("disk", full)

    def _first(self, name: str, holds: bool) -> bool:
        """Whether a condition holds and has not been reported since it last cleared."""
        first = holds and name not in self._reported
        (self._reported.add if holds else self._reported.discard)(name)
        return first


class Stopwatch:
    """Adds up the time for which it is entered, on a GPU by CUDA events. Only `take` waits for those."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds = self._begun = 0.0
        self._marks: list[torch.cuda.Event] = []

    def __enter__(self) -> Stopwatch:
        self._mark()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._mark(end=True)

    def take(self) -> float:
        """Returns the sum and resets it."""
        if self._marks:
            self._marks[-1].synchronize()
        pairs = zip(self._marks[::2], self._marks[1::2], strict=True)
        seconds: float = self._seconds + sum(begin.elapsed_time(end) for begin, end in pairs) / 1e3
        self._seconds, self._marks = 0.0, []
        return seconds

    def _mark(self, *, end: bool = False) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        elif end:
            self._seconds += time.perf_counter() - self._begun
        else:
            self._begun = time.perf_counter()


class StragglerMonitor:
    """Measures this rank's time and reports on all ranks together. Construction and `step` are collective.

    stopwatch: enter it around forward passes.
    """

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.stopwatch = Stopwatch(device)
        self._warnings, self._run_dir, self._every = Warnings(config.health), config.run_dir, config.train.log_every
        self._remedy = REMEDY_REMOTE if is_url(config.data.path) else REMEDY
        self._hosts = gathered(platform.node())
        self._begun = False
        self._sums = torch.zeros(len(self._hosts), 3, dtype=torch.float64)
        self._step_s = self._wait_s = 0.0

    def step(self, step: int, seconds: float, wait_s: float) -> None:
        """Adds a step: its seconds, and those spent waiting for data. Checks every train.log_every steps."""
        self._step_s += seconds
        self._wait_s += wait_s
        if step % self._every == 0:
            self._check(step)

    def _check(self, step: int) -> None:
        """Gathers the ranks' times and judges them once they add up to MIN_S. Skips the first row, which includes
        compilation and the loader's start."""
        spent = [self._step_s, self.stopwatch.take(), self._wait_s]
        mine = torch.tensor(spent, dtype=torch.float64, device=self.stopwatch.device)
        gathered = [torch.empty_like(mine) for _ in self._hosts]
        dist.all_gather(gathered, mine)
        self._step_s = self._wait_s = 0.0
        self._sums += torch.stack(gathered).cpu() * self._begun
        self._begun = True
        step_s, forward_s, wait_s = self._sums.T.tolist()
        if dist.get_rank() or step_s[0] < MIN_S:
            return
        self._sums.zero_()
        busy = [f + w for f, w in zip(forward_s, wait_s, strict=True)]
        for rank, factor in self._warnings.slow_ranks(busy, step_s[0]).items():
            detail = f"rank {rank} ({self._hosts[rank]}) took {factor:.1f} times as long as the others"
            events.report(self._run_dir, step, "slow rank", "the others wait for it: check that node", detail)
        if found := self._warnings.starved(wait_s, step_s[0]):
            rank, share = found
            detail = f"{share:.0%} of the time was spent waiting for data (rank {rank}, {self._hosts[rank]})"
            events.report(self._run_dir, step, "data starvation", self._remedy, detail)
        with suppress(UserError, OSError):  # a save that fails reports these
            self._check_disk(step)

    def _check_disk(self, step: int) -> None:
        warning = store.disk_warning(self._run_dir / "checkpoints")
        if self._warnings.disk(warning is not None) and warning:
            kind, detail = warning.split(": ", 1)
            events.report(self._run_dir, step, kind, "free disk space, or lower checkpoint.keep", detail)
