"""How much time a job has left, and when it must save to be in time. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from bigchem.base.errors import UserError

JOB_END = ("BIGCHEM_JOB_END", "SLURM_JOB_END_TIME")
"""Variables that say when the job ends, in seconds since 1970: ours, for whoever knows it, then Slurm's."""
LIMIT_SIGNAL = "BIGCHEM_LIMIT_SIGNAL_FROM"
"""Variable that says from when on, in seconds since 1970, a signal of the cluster is that of the time limit."""
MARGIN_S = 15.0
"""For what comes after the save: leaving, and telling the launcher."""
FIRST_SAVE_S = 30.0
"""What a save is taken to last before the first one; less where the job is short."""
RECENT = 20
"""Steps whose slowest is reckoned with."""


class TimeLimit:
    """Tells when to stop, so that a save, which may be twice as slow as the last one, ends before the job does.

    end: seconds since 1970, None where nothing limits the job. now: the time at the start. save_s, validation_s: how
    long the last one took. validations: how many come before the save, were the run to go on for one more step. moves:
    the end, by the time in which the job is suspended.
    """

    def __init__(self, end: float | None, now: float, *, moves: bool = False) -> None:
        self.end, self._moves = end, moves
        self.save_s = FIRST_SAVE_S if end is None else min(FIRST_SAVE_S, max(0.0, end - now) / 10)
        self.validation_s = 0.0
        self.validations = 0
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._late: str | None = None

    def step_took(self, seconds: float) -> None:
        """Counts a step."""
        self._steps.append(seconds)

    def needed(self) -> float:
        """Seconds that must be left to go on."""
        validating = self.validations * self.validation_s
        return 2 * self.save_s + validating + max(self._steps, default=0.0) + MARGIN_S

    def late(self, now: float, stopped_s: float = 0.0) -> str | None:
        """In words, if the run must save now; None: it may go on. What has once been said stays: the save that follows
        may turn out to be quick. stopped_s: for how long the job has been suspended since the start."""
        left = math.inf if self.end is None else self.end - now + (stopped_s if self._moves else 0.0)
        if self._late is None and left < self.needed():
            self._late = f"{left:.0f} s are left of the job, saving in time takes {self.needed():.0f}"
        return self._late


def validations(step: int, every: int, steps: int) -> int:
    """How many of the steps `step` and `step` + 1, numbered from 1, are followed by a validation: a run that is in
    `step` and goes on looks at the clock again at the end of the one after it, and saves after that one's validation.

    every: validation.every, 0 for never. steps: of the whole run, whose last one is validated in any case.
    """
    return sum(1 for s in (step, step + 1) if every and s <= steps and (s % every == 0 or s == steps))


def end_moves(env: Mapping[str, str]) -> bool:
    """Whether Slurm says when the job ends: it gives back what a suspension took. Who sets our variable may not."""
    return not env.get(JOB_END[0])


def job_end(env: Mapping[str, str], now: float) -> float | None:
    """When the job ends, in seconds since 1970; None: nobody said. UserError if what was said is no number, or past at
    `now`: such a job would do one step at every start."""
    for name in JOB_END:
        if env.get(name):
            try:
                end = float(env[name])
            except ValueError:
                raise UserError(f"{name} = {env[name]!r} is not a number of seconds", "environment") from None
            if end <= now:
                raise UserError(
                    f"{name} = {env[name]} is {now - end:.0f} s ago", "environment", "unset it, or set it anew"
                )
            return end
    return None


def is_limit_signal(env: Mapping[str, str], now: float) -> bool:
    """Whether a signal of the cluster comes so late that it is the one before the time limit, and no preemption."""
    try:
        return now >= float(env.get(LIMIT_SIGNAL, "inf"))
    except ValueError:
        return False
