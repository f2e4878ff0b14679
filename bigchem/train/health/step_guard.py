"""What a step's loss and gradient say: apply the step, leave it out, roll back, or stop. Pure.

Every decision is a function of numbers that are the same on all ranks, so that all ranks decide alike; what it
remembers is saved with the checkpoint, so that a resumed run decides as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigchem.config import HealthConfig

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
LEAST_SPREAD = 0.01
"""Spread of the losses is taken to be at least this share of their median: where a loss has become all but constant,
any noise would be many deviations."""


@dataclass(frozen=True)
class BadStep:
    """Why a step is left out. kind: loss, gradient or spike. reason: in words, with the numbers."""

    kind: str
    reason: str


class StepGuard:
    """Judges steps one after the other: first the loss, which is known before the optimizer moves, then the whole step.

    state: what `state` gave when a checkpoint was saved; {} at the start. streak: bad steps in a row up to now.
    """

    def __init__(self, config: HealthConfig, state: dict[str, Any]) -> None:
        self._config = config
        self._recent: deque[float] = deque(state.get("recent", ()), maxlen=config.window)
        self.skipped: dict[str, int] = dict(state.get("skipped", {}))
        self.streak: int = state.get("streak", 0)

    def judge_loss(self, loss: float) -> BadStep | None:
        """Why the step must be left out for its loss; None: it may be applied."""
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
        """Why the step was left out, and counts it. bad: what judge_loss said. grad_norm: before clipping; where it is
        not finite the engine left the step out."""
        if bad is None and not math.isfinite(grad_norm):
            bad = BadStep("gradient", f"the gradient's norm is {grad_norm}")
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
        """What a checkpoint remembers, as JSON."""
        return {"recent": list(self._recent), "skipped": self.skipped, "streak": self.streak}


def robust_zscore(value: float, recent: deque[float]) -> tuple[float, float]:
    """How many deviations (by the median absolute one) a value lies above the median of recent ones, and the median."""
    values = np.array(recent, dtype=np.float64)
    median = float(np.median(values))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
    return (value - median) / max(spread, LEAST_SPREAD * abs(median), 1e-12), median


class RollBacks:
    """Lets a run go back to a checkpoint once: the same data and weights would only lead to the same steps again."""

    def __init__(self) -> None:
        self._last: int | None = None

    def refusal(self, checkpoint: int) -> str | None:
        """Why the run must stop, and not go back to the checkpoint after that many steps (0: there is none); None: it
        may, and this is counted."""
        if checkpoint == 0:
            return "there is no checkpoint to go back to"
        if checkpoint == self._last:
            return f"the run went back to step {checkpoint} already, and it came to the same"
        self._last = checkpoint
        return None
