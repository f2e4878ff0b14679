"""How far a GPU has come of what the host gave it to do: the host runs ahead, and waits for it once a step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import torch

KEPT = 4096
"""Beats that wait for the device; a step has some ten and ends with a wait."""


class Event(Protocol):
    """Of torch.cuda.Event, what is needed."""

    def record(self) -> None:
        """Joins the queue of what the device has to do."""

    def query(self) -> bool:
        """Whether the device has come to it."""


class DeviceProgress:
    """The beats that the device has come to, in order. make: gives a new event."""

    def __init__(self, make: Callable[[], Event]) -> None:
        self._make = make
        self._waiting: deque[tuple[Event, str, int]] = deque(maxlen=KEPT)
        self._reached = ("prepare", 0)

    def beat(self, phase: str, beats: int) -> None:
        """The host enters a phase, having given the device all that is to be done before it."""
        event = self._make()
        event.record()
        self._waiting.append((event, phase, beats))
        while self._waiting and self._waiting[0][0].query():
            _, phase, beats = self._waiting.popleft()
            self._reached = (phase, beats)

    def reached(self) -> tuple[str, int]:
        """The phase that the device is in, and its beat. Called by another thread, once the host stands still."""
        found = self._reached
        for event, phase, beats in list(self._waiting):
            if not event.query():
                break
            found = (phase, beats)
        return found


def device_progress_of(device: torch.device) -> DeviceProgress | None:
    """Of a GPU; None on a CPU, where the host does the work itself."""
    if device.type != "cuda":
        return None
    return DeviceProgress(lambda: cast(Event, torch.cuda.Event()))
