"""A GPU's position in the work queued by the host, which runs ahead and waits for it once per step."""

from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import torch

MAX_PENDING = 4096
"""Heartbeats the device has not reached yet. A step has about ten and ends with a wait."""


class Event(Protocol):
    """The part of torch.cuda.Event used here."""

    def record(self) -> None:
        """Queues the event on the device."""

    def query(self) -> bool:
        """Whether the device has reached it."""


class DeviceProgress:
    """Tracks which heartbeats the device has reached. make: creates an event."""

    def __init__(self, make: Callable[[], Event]) -> None:
        self._make = make
        self._pending: deque[tuple[Event, str, int]] = deque(maxlen=MAX_PENDING)
        self._reached = ("prepare", 0)

    def beat(self, phase: str, beats: int) -> None:
        """Records that the host enters a phase, with all work before it queued on the device."""
        event = self._make()
        event.record()
        self._pending.append((event, phase, beats))
        while self._pending and self._pending[0][0].query():
            _, phase, beats = self._pending.popleft()
            self._reached = (phase, beats)

    def reached(self) -> tuple[str, int]:
        """The phase that the device is in, and its heartbeat number. Another thread calls it when the host hangs."""
        found = self._reached
        for event, phase, beats in list(self._pending):
            if not event.query():
                break
            found = (phase, beats)
        return found


def device_progress_of(device: torch.device) -> DeviceProgress | None:
    """The progress of a GPU; None on a CPU, where the host does the work itself."""
    if device.type != "cuda":
        return None
    return DeviceProgress(lambda: cast(Event, torch.cuda.Event()))
