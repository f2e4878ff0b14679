"""Stop signals set a flag. The loop reduces it over ranks and saves at a step boundary.

Handlers only set the flag: to act there would leave other ranks hanging in a collective operation.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from enum import Enum
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""USR1, USR2 and TERM: sent by a cluster before it takes a node away. INT: sent by a user."""
SLURM_STEP = "SLURM_STEP_ID"
"""Set only in processes of a Slurm step."""
ECHO_S = 0.5
"""A launcher gets a Ctrl-C too and forwards it (torchrun at once): a second SIGINT this soon is the same one."""


class StopRequest(Enum):
    """Why a rank should save and stop: the cluster, the user, or another attempt that owns the run."""

    NONE = 0
    PREEMPTED = 1
    USER = 2
    DISOWNED = 3


def is_from_user(name: str, env: Mapping[str, str]) -> bool:
    """Whether a signal comes from a user who wants to stop the run: Ctrl-C or kill. In a Slurm step SIGTERM comes from
    the cluster, as USR2 does: preemption, time limit, a lost rank. scancel sends it too, but then the job is not
    restarted."""
    return name == "SIGINT" or (name == "SIGTERM" and SLURM_STEP not in env)


class StopFlag:
    """While entered, a stop signal sets `received`; a second SIGINT interrupts at once. If an error ends the block, the
    handlers stay: launchers send SIGTERM once one rank is gone, while the others still report why they exit.

    announce: acknowledge the first signal on the terminal.
    """

    def __init__(self, *, announce: bool = False) -> None:
        self._announce = announce
        self.received: str | None = None
        self._interrupted: float | None = None
        self._previous: dict[int, object] = {}

    @property
    def request(self) -> StopRequest:
        """The request that the received signal stands for."""
        if self.received is None:
            return StopRequest.NONE
        return StopRequest.USER if is_from_user(self.received, os.environ) else StopRequest.PREEMPTED

    def __enter__(self) -> StopFlag:
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items() if error is None else ():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._announce and self.received is None:
            again = "; press again to quit at once" if number == signal.SIGINT else ""
            line = f"{signal.Signals(number).name}: saving after this step{again}\n"
            os.write(2, line.encode())  # not print, which the handler may have interrupted
        if number == signal.SIGINT:
            if self._interrupted is not None and now - self._interrupted > ECHO_S:
                raise KeyboardInterrupt
            self._interrupted = self._interrupted or now
            self.received = "SIGINT"
        self.received = self.received or signal.Signals(number).name
