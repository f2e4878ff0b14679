"""Numbers with their intervals: means over seeds and differences (PURE: numpy and scipy).

Every interval is 95 %, for a single number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SIZES_FOR_LINE = 3
"""Two sizes always fit a line, leaving no residual to judge it by."""

Z95 = 1.959964
"""The 97.5 % quantile of the normal distribution."""

Floats = NDArray[np.float64]


def student_t(dof: int) -> float:
    """The 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit  # here: `bigchem sweep results` imports this module without needing scipy

    return float(stdtrit(dof, 0.975))


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; low and high are both None if its noise is unknown."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def margins(self) -> tuple[float, float] | None:
        """Distance from the value to each end of the interval, never negative."""
        if self.low is None or self.high is None:
            return None
        return max(0.0, self.value - self.low), max(0.0, self.high - self.value)

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies entirely on that side of zero; 0 otherwise, or without one."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over seeds.

    Its interval combines in quadrature the noise of the test examples (the seeds' own margins, averaged but not shrunk,
    as all seeds are judged on the same examples) and, from two seeds on, training noise (Student's t over seeds).
    """
    values = np.array([e.value for e in estimates])
    mean, seeds = float(values.mean()), len(values)
    margins = [e.margins for e in estimates]
    known = [m for m in margins if m is not None]
    examples = np.mean(known, axis=0) if len(known) == seeds else None
    training = student_t(seeds - 1) * float(values.std(ddof=1)) / math.sqrt(seeds) if seeds > 1 else None
    if examples is None and training is None:
        return Estimate(mean)
    below, above = np.hypot(examples if examples is not None else np.zeros(2), training or 0.0)
    return Estimate(mean, mean - float(below), mean + float(above))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b, margins in quadrature: too wide, not too narrow, if both were judged on the same examples."""
    value = a.value - b.value
    if a.margins is None or b.margins is None:
        return Estimate(value)
    below = math.hypot(a.margins[0], b.margins[1])
    above = math.hypot(a.margins[1], b.margins[0])
    return Estimate(value, value - below, value + above)
