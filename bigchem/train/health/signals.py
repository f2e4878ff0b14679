"""Signals set a flag; the loop looks at it at a step boundary, together with all ranks, and saves there.

Nothing is done in a handler but to remember: a collective operation that has begun elsewhere would never end.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from enum import Enum
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""What a cluster sends before it takes a node away (USR1, USR2, TERM) and what a person sends (INT)."""
SLURM_STEP = "SLURM_STEP_ID"
"""Set in the processes of a Slurm step, and nowhere else."""
ECHO_S = 0.5
"""A launcher hears a Ctrl-C as well and passes it on (torchrun at once): a SIGINT so soon after one is the same one."""


class StopRequest(Enum):
    """Why a rank should save and stop: for the cluster, for the user, or because another attempt owns the run."""

    NONE = 0
    PREEMPTED = 1
    USER = 2
    DISOWNED = 3


def is_from_user(name: str, env: Mapping[str, str]) -> bool:
    """Whether a signal comes from a person, who wants the run to stop: Ctrl-C, and kill. In a Slurm step SIGTERM is
    the cluster's word as much as USR2 is: of a preemption, a time limit, or a rank that is gone. scancel sends it too,
    but then the job ends, and nothing starts it again."""
    return name == "SIGINT" or (name == "SIGTERM" and SLURM_STEP not in env)


class StopFlag:
    """While entered, a stop signal sets `received`; a second SIGINT interrupts at once. So it stays where an error ends
    the block: launchers send SIGTERM as soon as one rank is gone, and the others are still to say why they go.

    tell: the first signal is answered on the terminal, with what is waited for.
    """

    def __init__(self, *, tell: bool = False) -> None:
        self._tell = tell
        self.received: str | None = None
        self._interrupted: float | None = None
        self._previous: dict[int, object] = {}

    @property
    def request(self) -> StopRequest:
        """What the signal received stands for."""
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
        if self._tell and self.received is None:
            again = "; once more quits at once" if number == signal.SIGINT else ""
            line = f"{signal.Signals(number).name}: saving when this step is done{again}\n"
            os.write(2, line.encode())  # print is not for handlers: it may stand in the middle of one
        if number == signal.SIGINT:
            if self._interrupted is not None and now - self._interrupted > ECHO_S:
                raise KeyboardInterrupt
            self._interrupted = self._interrupted or now
            self.received = "SIGINT"
        self.received = self.received or signal.Signals(number).name
