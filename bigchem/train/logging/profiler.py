"""Profiles a few steps of rank 0: torch's trace, for Perfetto or chrome://tracing, and its memory records."""

from __future__ import annotations

import time
from types import TracebackType

import torch
from torch.profiler import ProfilerActivity, profile

from bigchem.base import atomic
from bigchem.config import RunConfig

MEMORY_EVENTS = 100_000
"""Limit on recorded GPU allocations and releases; older ones are lost."""


class Profiler:
    """Profiles the remaining steps of train.profile into run folder/profile/step_START_STOP/.

    The profile includes what happens between these steps (validation, checkpoints). done: steps already taken. A run
    that stops in between writes what it has.
    """

    def __init__(self, config: RunConfig, done: int, device: torch.device, *, enabled: bool) -> None:
        asked = config.train.profiled
        self._steps = range(max(asked.start, done + 1), asked.stop) if enabled else range(0)
        self._folder, self._device = config.run_dir / "profile", device
        self._running: profile | None = None
        self._first = self._last = 0
        if enabled and asked and not self._steps:
            print(f"profile: steps {asked.start} to {asked.stop - 1} are already done", flush=True)

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._running is not None:
            self._write(self._running)

    def begin(self, step: int) -> None:
        """Starts the profiler before the first of the steps."""
        if not self._steps or step != self._steps[0]:
            return
        cuda = self._device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        if cuda:
            torch.cuda.memory._record_memory_history(max_entries=MEMORY_EVENTS)
        self._first = step
        self._running = profile(activities=activities, record_shapes=True, profile_memory=True)
        self._running.start()

    def end(self, step: int) -> float:
        """Stops and writes the profile after the last step. Returns the seconds taken, mostly by torch's sorting."""
        begun = time.monotonic()
        self._last = step
        if self._running is not None and step == self._steps[-1]:
            self._write(self._running)
        return time.monotonic() - begun

    def _write(self, running: profile) -> None:
        self._running = None
        running.stop()
        folder = self._folder / f"step_{self._first}_{self._last}"
        with atomic.replace_folder(folder) as partial:
            running.export_chrome_trace(str(partial / "trace.json.gz"))
            if self._device.type == "cuda":
                torch.cuda.memory._dump_snapshot(str(partial / "memory.pickle"))
                torch.cuda.memory._record_memory_history(enabled=None)
            else:
                # What each operation allocated: on a CPU there is no snapshot.
                table = running.key_averages().table(sort_by="self_cpu_memory_usage", row_limit=50)
                (partial / "memory.txt").write_text(table + "\n")
        print(f"profile of steps {self._first} to {self._last}: {folder}", flush=True)
