"""Statistics of a sweep: means over seeds, differences, slopes and curves against model size (PURE: numpy only).

Every interval is 95 % and stands for one number looked at alone. Sizes are numbers of parameters; all fits are made
against their decimal logarithm, so a slope is "per decade": per tenfold model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_SIZES_FOR_LINE = 3
"""Through two sizes a line always passes: it says nothing about what it leaves out."""
MIN_SIZES_FOR_POWER = 4
"""The power law with a floor has three parameters."""

Floats = NDArray[np.float64]
Kind = Literal["linear", "power"]

_T975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


def student_t(dof: int) -> float:
    """The 97.5 % quantile of Student's t: a table up to 10 degrees of freedom, then the Cornish-Fisher expansion
    (Abramowitz & Stegun 26.7.5; off by less than 1e-3 from there on)."""
    if dof <= len(_T975):
        return _T975[dof - 1]
    z = 1.959964
    first, second, third = z**3 + z, 5 * z**5 + 16 * z**3 + 3 * z, 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z
    return z + first / (4 * dof) + second / (96 * dof**2) + third / (384 * dof**3)


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; low and high are None together where nothing is known of its noise."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def margins(self) -> tuple[float, float] | None:
        """How far the interval reaches below and above the value, never negative."""
        if self.low is None or self.high is None:
            return None
        return max(0.0, self.value - self.low), max(0.0, self.high - self.value)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on that side of zero; 0 where it does not, or where there is none."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over seeds.

    Its interval joins, in quadrature, the noise of the test examples (the seeds' own margins, averaged but not shrunk:
    all seeds are judged on the same examples) and, from two seeds on, the noise of training (Student's t over seeds).
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
    """a - b, margins in quadrature: too wide rather than too narrow where both were judged on the same examples."""
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

    The slope's interval is the wider of two: Student's t on the scatter about the line, and the points' own margins
    carried through. With three points the scatter alone is a single degree of freedom and can be small by luck.
    """
    sizes = np.asarray(parameters, dtype=float)
    values = np.array([e.value for e in estimates])
    distinct = np.unique(sizes)
    if len(distinct) < MIN_SIZES_FOR_LINE:
        return None
    pivot = _pivot(sizes)
    x = np.log10(sizes / pivot)
    spread = x - x.mean()
    weights = spread / (spread @ spread)
    slope = float(weights @ values)
    height = float(values.mean() - slope * x.mean())
    residuals = values - height - slope * x
    dof = len(values) - 2
    scatter = student_t(dof) * math.sqrt(float(residuals @ residuals) / dof / float(spread @ spread))
    carried = 0.0
    if all(e.margins is not None for e in estimates):
        margins = np.array([max(e.margins or (0.0, 0.0)) for e in estimates])
        # Seeds of one size share their test examples, so their margins add up before sizes are joined.
        carried = math.hypot(*(abs(float(weights[sizes == s] @ margins[sizes == s])) for s in distinct))
    half = max(scatter, carried)
    return Line(Estimate(slope, slope - half, slope + half), height, pivot, len(distinct))


@dataclass(frozen=True)
class Curve:
    """The chosen shape of a metric against size.

    linear: constant + factor * log10(N / pivot)
    power:  constant + factor * (N / pivot) ** -exponent; the constant is the floor (or ceiling) it tends to.
    loo: for each shape that was tried, the root mean square error in predicting a size left out.
    """

    kind: Kind
    constant: float
    factor: float
    exponent: float
    pivot: float
    sizes: int
    loo: dict[Kind, float]

    def __call__(self, parameters: ArrayLike) -> Floats:
        """The curve's values at these sizes."""
        ratio = np.asarray(parameters, dtype=float) / self.pivot
        return self.constant + self.factor * _basis(self.kind, ratio, self.exponent)

    @property
    def formula(self) -> str:
        """The curve in one line of text, N in parameters."""
        if self.kind == "linear":
            return f"{self.constant:.4g} {self.factor:+.4g} log10(N / {self.pivot:.3g})"
        return f"{self.constant:.4g} {self.factor:+.4g} (N / {self.pivot:.3g})^-{self.exponent:.3g}"


def curve(parameters: Sequence[float], values: Sequence[float]) -> Curve | None:
    """Fits linear-in-log, and from four sizes on a power law with a floor; keeps the one with the smaller error in
    predicting left-out sizes (the simpler one on a tie). None for fewer than three sizes.

    Each size counts once, however many seeds it has.
    """
    given = np.asarray(parameters, dtype=float)
    sizes = np.unique(given)
    if len(sizes) < MIN_SIZES_FOR_LINE:
        return None
    heights = np.array([np.asarray(values, dtype=float)[given == size].mean() for size in sizes])
    kinds: tuple[Kind, ...] = ("linear", "power") if len(sizes) >= MIN_SIZES_FOR_POWER else ("linear",)
    loo = {kind: _leave_one_out(kind, sizes, heights) for kind in kinds}
    kind = min(kinds, key=lambda k: loo[k])
    constant, factor, exponent = _solve(kind, sizes / _pivot(sizes), heights)
    return Curve(kind, constant, factor, exponent, _pivot(sizes), len(sizes), loo)


def _pivot(sizes: Floats) -> float:
    """The geometric mean: fits about it are well conditioned."""
    return float(10 ** np.log10(sizes).mean())


def _basis(kind: Kind, ratio: Floats, exponent: float | Floats) -> Floats:
    result: Floats = np.log10(ratio) if kind == "linear" else ratio**-exponent
    return result


def _solve(kind: Kind, ratio: Floats, values: Floats) -> tuple[float, float, float]:
    """(constant, factor, exponent): for a given exponent the rest is linear, so only the exponent is searched."""
    if kind == "linear":
        constant, factor, _ = _regress(_basis(kind, ratio, 0.0)[None], values)
        return float(constant[0]), float(factor[0]), 0.0
    # Published exponents of loss against size lie between 0.05 and 0.5; 0.02 is already a straight line in the log.
    exponents = np.geomspace(0.02, 3.0, 256)
    for _ in range(3):
        constant, factor, errors = _regress(_basis(kind, ratio, exponents[:, None]), values)
        best = int(errors.argmin())
        result = float(constant[best]), float(factor[best]), float(exponents[best])
        exponents = np.linspace(exponents[max(best - 1, 0)], exponents[min(best + 1, len(exponents) - 1)], 64)
    return result


def _regress(basis: Floats, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Least squares of values [n] on each row of basis [k, n]: constants, factors and squared errors, each [k]."""
    centred = basis - basis.mean(axis=1, keepdims=True)
    factor = centred @ values / (centred**2).sum(axis=1)
    constant = values.mean() - factor * basis.mean(axis=1)
    errors = ((constant[:, None] + factor[:, None] * basis - values) ** 2).sum(axis=1)
    return constant, factor, errors


def _leave_one_out(kind: Kind, sizes: Floats, values: Floats) -> float:
    pivot, squares = _pivot(sizes), []
    for out in range(len(sizes)):
        kept = np.arange(len(sizes)) != out
        constant, factor, exponent = _solve(kind, sizes[kept] / pivot, values[kept])
        predicted = constant + factor * _basis(kind, sizes[out : out + 1] / pivot, exponent)[0]
        squares.append((predicted - values[out]) ** 2)
    return math.sqrt(float(np.mean(squares)))
