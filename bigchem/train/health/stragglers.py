"""What slows a run down or will stop it: a slow rank, waiting for data, a disk that is nearly full.

Looked at once per row of metrics; every rank takes part in one small all-gather. The lines are told, nothing is done.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from contextlib import suppress

import torch
import torch.distributed as dist

from bigchem.base.errors import UserError
from bigchem.config import HealthConfig, RunConfig
from bigchem.data.storage.remote import is_url
from bigchem.train.checkpoint import store
from bigchem.train.health import events
from bigchem.train.health.stopwatch import Stopwatch

IN_A_ROW = 3
"""Intervals that a rank must be slow in before it is told."""
LEAST_S = 5.0
"""Seconds that are judged together, at least: over fewer the machine's own noise is told."""
REMEDY = "put data.path on a local disk"
REMEDY_REMOTE = "raise data.cache_gb, set data.shuffle_window, or put data.cache on a local disk"
LEAST_SHARE = 0.05
"""Share of an interval that a rank must lose to be called slow: steps of a millisecond are all noise."""


class Warnings:
    """Decides what is told: each warning once, until it has cleared. Pure."""

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        self._slow: dict[int, int] = {}
        self._told: set[str] = set()

    def slow_ranks(self, busy_s: Sequence[float], interval_s: float) -> dict[int, float]:
        """Ranks to tell, and how many times as long as the others they take.

        busy_s: seconds that each rank spent by itself in the interval: in its forward passes and waiting for data.
        """
        told = {}
        for rank, seconds in enumerate(busy_s):
            others = [s for other, s in enumerate(busy_s) if other != rank]
            usual = statistics.median(others) if others else seconds
            slow = seconds > self._config.slow_rank * usual and seconds - usual > LEAST_SHARE * interval_s
            self._slow[rank] = self._slow.get(rank, 0) + 1 if slow else 0
            if self._first(f"slow {rank}", self._slow[rank] >= IN_A_ROW):
                told[rank] = seconds / max(usual, 1e-9)
        return told

    def starved(self, wait_s: Sequence[float], interval_s: float) -> tuple[int, float] | None:
        """The rank that waits longest for data and the share of the interval that it waits, if that is to be told."""
        rank = max(range(len(wait_s)), key=lambda r: wait_s[r])
        share = wait_s[rank] / max(interval_s, 1e-9)
        return (rank, share) if self._first("starved", share > self._config.starved) else None

    def disk(self, full: bool) -> bool:
        """Whether to tell that the next checkpoint may not fit."""
        return self._first("disk", full)

    def _first(self, name: str, holds: bool) -> bool:
        """Whether a condition holds and has not been told since it last did not."""
        first = holds and name not in self._told
        (self._told.add if holds else self._told.discard)(name)
        return first


class StragglerMonitor:
    """Measures this rank's seconds and tells what the ranks together show. Every rank makes it and counts its steps.

    stopwatch: to run during this rank's forward passes.
    """

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.stopwatch = Stopwatch(device)
        self._notices, self._run_dir, self._every = Warnings(config.health), config.run_dir, config.train.log_every
        self._remedy = REMEDY_REMOTE if is_url(config.data.path) else REMEDY
        self._hosts: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(self._hosts, platform.node())
        self._begun = False
        self._sums = torch.zeros(len(self._hosts), 3, dtype=torch.float64)
        self._step_s = self._wait_s = 0.0

    def step(self, step: int, seconds: float, wait_s: float) -> None:
        """Adds a step: all of its seconds, and those spent waiting for data; every train.log_every looks at them."""
        self._step_s += seconds
        self._wait_s += wait_s
        if step % self._every == 0:
            self._look(step)

    def _look(self, step: int) -> None:
        """Gathers what the ranks spent. Judged is what makes LEAST_S together; and not the first row, which holds
        compilation, and in which the loader has only begun."""
        spent = [self._step_s, self.stopwatch.take(), self._wait_s]
        mine = torch.tensor(spent, dtype=torch.float64, device=self.stopwatch.device)
        gathered = [torch.empty_like(mine) for _ in self._hosts]
        dist.all_gather(gathered, mine)
        self._step_s = self._wait_s = 0.0
        self._sums += torch.stack(gathered).cpu() * self._begun
        self._begun = True
        step_s, forward_s, wait_s = self._sums.T.tolist()
        if dist.get_rank() or step_s[0] < LEAST_S:
            return
        self._sums.zero_()
        busy = [f + w for f, w in zip(forward_s, wait_s, strict=True)]
        for rank, factor in self._notices.slow_ranks(busy, step_s[0]).items():
            detail = f"rank {rank} ({self._hosts[rank]}) has taken {factor:.1f} times as long as the others"
            events.report(self._run_dir, step, "slow rank", "they wait for it, look at that machine", detail)
        if found := self._notices.starved(wait_s, step_s[0]):
            rank, share = found
            detail = f"{share:.0%} of the time went into waiting for data (rank {rank}, {self._hosts[rank]})"
            events.report(self._run_dir, step, "data starvation", self._remedy, detail)
        with suppress(UserError, OSError):  # what cannot be read is told by the save that fails
            self._look_at_the_disk(step)

    def _look_at_the_disk(self, step: int) -> None:
        warning = store.disk_warning(self._run_dir / "checkpoints")
        if self._notices.disk(warning is not None) and warning:
            kind, detail = warning.split(": ", 1)
            events.report(self._run_dir, step, kind, "free some, or lower checkpoint.keep", detail)
