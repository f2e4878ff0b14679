"""Statistics of a sweep: means over seeds, differences and slopes against model size (PURE: numpy and scipy).

Every interval is 95 %, for a single number. Sizes are numbers of parameters; all fits are against log10(parameters),
so a slope is "per decade": per tenfold increase.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_SIZES_FOR_LINE = 3
"""Two sizes always fit a line, leaving no residual to judge it by."""

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


@dataclass(frozen=True)
class Line:
    """A least-squares line against log10(parameters): its height at `pivot` parameters and its slope per decade."""

    slope: Estimate
    height: float
    pivot: float
    sizes: int

    def __call__(self, parameters: ArrayLike) -> Floats:
        """The line's values at these sizes."""
        decades: Floats = np.log10(np.asarray(parameters, dtype=float) / self.pivot)
        return self.height + self.slope.value * decades


def line(parameters: Sequence[float], estimates: Sequence[Estimate]) -> Line | None:
    """A line through points (one per size, or one per size and seed); None for fewer than three sizes.

    The slope's interval is the wider of two: Student's t on the scatter about the line; and, if margins are known,
    the margins propagated to the slope, combined in quadrature with training noise (Student's t on the seeds about
    their size's mean). The scatter alone would not do: with three points it has one degree of freedom and can be small
    by luck; with several seeds it counts each as a size, though they share the noise of the examples.
    """
    sizes = np.asarray(parameters, dtype=float)
    values = np.array([e.value for e in estimates])
    distinct = np.unique(sizes)
    if len(distinct) < MIN_SIZES_FOR_LINE:
        return None
    pivot = float(10 ** np.log10(sizes).mean())  # the geometric mean, about which fits are well conditioned
    x = np.log10(sizes / pivot)
    spread = x - x.mean()
    weights = spread / (spread @ spread)
    slope = float(weights @ values)
    height = float(values.mean() - slope * x.mean())
    residuals = values - height - slope * x
    dof = len(values) - 2
    scatter = student_t(dof) * math.sqrt(float(residuals @ residuals) / dof / float(spread @ spread))
    known = 0.0
    if all(e.margins is not None for e in estimates):
        margins = np.array([max(e.margins or (0.0, 0.0)) for e in estimates])
        # Seeds of one size share their test examples, so their margins add before sizes combine in quadrature.
        propagated = math.hypot(*(abs(float(weights[sizes == s] @ margins[sizes == s])) for s in distinct))
        known = math.hypot(propagated, _training(sizes, values) / math.sqrt(float(spread @ spread)))
    half = max(scatter, known)
    return Line(Estimate(slope, slope - half, slope + half), height, pivot, len(distinct))


def _training(sizes: Floats, values: Floats) -> float:
    """Half-width of the 95 % interval of one seed about its size's mean, with the variance pooled over sizes; 0 with
    one seed everywhere."""
    dof = len(values) - len(np.unique(sizes))
    if not dof:
        return 0.0
    means = np.array([values[sizes == size].mean() for size in sizes])
    return student_t(dof) * math.sqrt(float(((values - means) ** 2).sum()) / dof)
