"""A job's remaining time, and when it must save. Pure."""

import math
from collections import deque
from collections.abc import Mapping

from bigchem.base.errors import UserError

JOB_END = ("BIGCHEM_JOB_END", "SLURM_JOB_END_TIME")
"""Environment variables with the job's end, in seconds since 1970: one for users to set, then Slurm's."""
LIMIT_SIGNAL = "BIGCHEM_LIMIT_SIGNAL_FROM"
"""Environment variable: a signal after this time, in seconds since 1970, means the time limit."""
MARGIN_S = 15.0
"""For what follows the save: exiting, and reporting to the launcher."""
FIRST_SAVE_S = 30.0
"""Assumed duration of the first save; less in a short job."""
RECENT = 20
"""Number of recent steps; the slowest of them counts."""


class TimeLimit:
    """Decides when to stop, so that a save twice as slow as the last one still finishes before the job ends.

    end: seconds since 1970; None without a limit. now: the time at the start. save_s, validation_s: duration of the
    last one. validations: how many precede the save if the run takes one more step. saves: checkpoints to write before
    the end, 2 while one is written in the background. moves: whether time in which the job is suspended extends the
    end.
    """

    def __init__(self, end: float | None, now: float, *, moves: bool = False) -> None:
        self.end, self._moves = end, moves
        self.save_s = FIRST_SAVE_S if end is None else min(FIRST_SAVE_S, max(0.0, end - now) / 10)
        self.validation_s = 0.0
        self.validations, self.saves = 0, 1
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._late: str | None = None

    def step_took(self, seconds: float) -> None:
        """Records a step's duration."""
        self._steps.append(seconds)

    def needed(self) -> float:
        """Seconds that must be left to take another step."""
        validating = self.validations * self.validation_s
        return 2 * self.saves * self.save_s + validating + max(self._steps, default=0.0) + MARGIN_S

    def late(self, now: float, stopped_s: float = 0.0) -> str | None:
        """Why the run must save now; None if it may continue. Once given, the reason stays, even if the save that
        follows is quick. stopped_s: seconds for which the job has been suspended since the start."""
        left = math.inf if self.end is None else self.end - now + (stopped_s if self._moves else 0.0)
        if self._late is None and left < self.needed():
            self._late = f"{left:.0f} s are left in the job, saving in time takes {self.needed():.0f}"
        return self._late


def validations(step: int, every: int, steps: int) -> int:
    """How many of the steps `step` and `step` + 1, numbered from 1, are followed by a validation: a run that continues
    from `step` checks the time again at the end of the next one, and saves after that one's validation.

    every: validation.every, 0 for never. steps: of the whole run; the last is always validated.
    """
    return sum(1 for s in (step, step + 1) if every and s <= steps and (s % every == 0 or s == steps))


def end_moves(env: Mapping[str, str]) -> bool:
    """Whether a suspension extends the job's end. It moves Slurm's end; the end that a user sets is taken as fixed."""
    return not env.get(JOB_END[0])


def job_end(env: Mapping[str, str], now: float) -> float | None:
    """When the job ends, in seconds since 1970; None if unknown. UserError for a value that is not a number, or is past
    at `now`: such a job would take one step per start."""
    for name in JOB_END:
        if env.get(name):
            try:
                end = float(env[name])
            except ValueError:
                raise UserError(f"{name} = {env[name]!r} is not a number of seconds", "environment") from None
            if end <= now:
                raise UserError(
                    f"{name} = {env[name]} is {now - end:.0f} s ago", "environment", "unset it or update it"
                )
            return end
    return None


def is_limit_signal(env: Mapping[str, str], now: float) -> bool:
    """Whether a signal now is the one before the time limit, and not a preemption."""
    try:
        return now >= float(env.get(LIMIT_SIGNAL, "inf"))
    except ValueError:
        return False
