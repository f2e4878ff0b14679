"""Decides from loss and gradient to apply a step, skip it, roll back, or stop. Pure.

Inputs are the same on all ranks, so all ranks decide alike. The state is saved with the checkpoint, so a resumed run
decides like an uninterrupted one.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigchem.config import HealthConfig

MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""
MIN_SPREAD = 0.01
"""Minimum spread of the losses, as a share of their median. With a nearly constant loss any noise would otherwise be
many deviations."""


@dataclass(frozen=True)
class BadStep:
    """Why a step is skipped. kind: loss, gradient or spike. reason: text with the numbers."""

    kind: str
    reason: str


class StepGuard:
    """Judges each step twice: its loss, known before the optimizer step, then the whole step.

    state: from `state` at the save; {} at the start. streak: bad steps in a row so far.
    """

    def __init__(self, config: HealthConfig, state: dict[str, Any]) -> None:
        self._config = config
        self._recent: deque[float] = deque(state.get("recent", ()), maxlen=config.window)
        self.skipped: dict[str, int] = dict(state.get("skipped", {}))
        self.streak: int = state.get("streak", 0)

    def judge_loss(self, loss: float) -> BadStep | None:
        """Why the step must be skipped for its loss; None if it may be applied."""
        if not math.isfinite(loss):
            return BadStep("loss", f"loss is {loss}")
        threshold = self._config.spike_zscore
        if not threshold or len(self._recent) < self._config.window:
            return None
        zscore, median = robust_zscore(loss, self._recent)
        if zscore <= threshold:
            return None
        usual = f"{median:.4g}, the median of the last {len(self._recent)}"
        return BadStep("spike", f"loss {loss:.4g} is {zscore:.1f} deviations above {usual}")

    def judge_step(self, loss: float, grad_norm: float, bad: BadStep | None) -> BadStep | None:
        """Counts the step. Returns why it was skipped, or None. bad: from judge_loss. grad_norm: before clipping; if it
        is not finite, the engine skipped the step."""
        if bad is None and not math.isfinite(grad_norm):
            bad = BadStep("gradient", f"the gradient norm is {grad_norm}")
        if bad is None:
            self._recent.append(loss)
            self.streak = 0
        else:
            self.skipped[bad.kind] = self.skipped.get(bad.kind, 0) + 1
            self.streak += 1
        return bad

    @property
    def exhausted(self) -> bool:
        """Whether too many bad steps came in a row."""
        return self.streak >= self._config.max_bad_steps

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, as JSON."""
        return {"recent": list(self._recent), "skipped": self.skipped, "streak": self.streak}


def robust_zscore(value: float, recent: deque[float]) -> tuple[float, float]:
    """(deviations by which a value exceeds the recent median, scaled from the median absolute one; that median)."""
    values = np.array(recent, dtype=np.float64)
    median = float(np.median(values))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
    return (value - median) / max(spread, MIN_SPREAD * abs(median), 1e-12), median


class RollBacks:
    """Allows one rollback per checkpoint: a second one would repeat the same steps from the same weights and data."""

    def __init__(self) -> None:
        self._last: int | None = None

    def refusal(self, checkpoint: int) -> str | None:
        """Why the run must stop instead of rolling back to the checkpoint after that many steps (0: there is none).
        None: it may roll back, and this is counted."""
        if checkpoint == 0:
            return "there is no checkpoint to roll back to"
        if checkpoint == self._last:
            return f"the run already rolled back to step {checkpoint}, with the same result"
        self._last = checkpoint
        return None
