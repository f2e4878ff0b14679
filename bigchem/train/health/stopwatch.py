"""Seconds spent in marked stretches of work, measured where the work is done."""

from __future__ import annotations

import time
from types import TracebackType

import torch


class Stopwatch:
    """Adds up the stretches that it is entered for; on a GPU by its own events, which nobody waits for until `take`."""

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
        """The sum, and starts again at 0."""
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
