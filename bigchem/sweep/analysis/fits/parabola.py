"""Parabolas of a metric in log N at equal training FLOPs, the best size of each, and how it grows (PURE: numpy).

Approach 2 of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.2): near its minimum, the loss of models that were
trained with equally many operations is nearly a parabola in the logarithm of their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bigchem.sweep.scores.estimate import Estimate, Floats

MIN_SIZES = 3
"""A parabola has three parameters."""
FLAT = 1e-9
"""Bends below this share of the values are rounding's."""
Verdict = Literal["within", "open", "edge"]
"""Of a best size. within: between the sizes, with its interval if the noise is known. open: between the sizes, but its
interval reaches beyond them. edge: at or beyond the smallest or largest size, or none: not determined."""


@dataclass(frozen=True)
class Parabola:
    """A least-squares parabola through values at three or more sizes, each counting once.

    ends: the smallest and the largest size. value(N) = theta[0] + theta[1] x + theta[2] x^2, x = log10(N / pivot).
    size: the best one; None at the edge. value: the parabola's there. draws [b]: x of the best size over resamples,
    wherever it lies, NaN where there is none; None if the noise is unknown.
    """

    ends: tuple[float, float]
    pivot: float
    verdict: Verdict
    size: Estimate | None
    value: float | None
    _theta: Floats = field(repr=False, compare=False)
    draws: Floats | None = field(repr=False, compare=False, default=None)

    def __call__(self, parameters: Floats) -> Floats:
        """The parabola's values at these sizes."""
        return _height(self._theta, np.log10(parameters / self.pivot))


def parabola(sizes: Sequence[float], values: Floats, draws: Floats | None, *, higher_is_better: bool) -> Parabola:
    """sizes [k], ascending. values [k]. draws [b, k]: the values with their noise redrawn, about these values."""
    logs = np.log10(np.asarray(sizes, dtype=float))
    pivot, sign = float(logs.mean()), -1.0 if higher_is_better else 1.0
    x = logs - pivot
    theta = _solve(x, values)
    best = float(_lowest(sign * theta, x, values))
    found = None if draws is None else _lowest(sign * _solve(x, draws), x, draws)
    ends = float(sizes[0]), float(sizes[-1])
    if not x[0] < best < x[-1]:
        return Parabola(ends, 10**pivot, "edge", None, None, theta, found)
    value = float(_height(theta, np.array(best)))
    low, high = (math.nan, math.nan) if found is None else _interval(found)
    verdict: Verdict = "within"
    size = Estimate(float(10 ** (best + pivot)))
    if found is not None and x[0] < low and high < x[-1]:
        size = Estimate(size.value, 10 ** (low + pivot), 10 ** (high + pivot))
    elif found is not None:
        verdict = "open"
    return Parabola(ends, 10**pivot, verdict, size, value, theta, found)


def growth(flops: Sequence[float], parabolas: Sequence[Parabola]) -> Estimate | None:
    """The exponent a of best sizes that grow as FLOPs^a: the least-squares slope of their logarithms. None for fewer
    than two best sizes. Without an interval if the noise is unknown, or if more than one draw in forty has no best
    size."""
    known = [(math.log10(c), p) for c, p in zip(flops, parabolas, strict=True) if p.size is not None]
    if len(known) < 2:
        return None
    logs = np.array([log for log, _ in known])
    weights = (logs - logs.mean()) / float((logs - logs.mean()) @ (logs - logs.mean()))
    value = float(weights @ [math.log10(p.size.value) for _, p in known if p.size is not None])
    draws = [p.draws + math.log10(p.pivot) for _, p in known if p.draws is not None]
    if len(draws) < len(known):
        return Estimate(value)
    low, high = _interval(weights @ np.stack(draws))
    return Estimate(value, low, high) if math.isfinite(high - low) else Estimate(value)


def _solve(x: Floats, values: Floats) -> Floats:
    """theta [..., 3] of the values [..., k]."""
    theta: Floats = values @ np.linalg.pinv(np.vander(x, 3, increasing=True)).T
    return theta


def _height(theta: Floats, x: Floats) -> Floats:
    height: Floats = theta[0] + x * (theta[1] + x * theta[2])
    return height


def _lowest(theta: Floats, x: Floats, values: Floats) -> Floats:
    """x of the minimum [...] of theta [..., 3]; NaN where the parabola does not bend upwards."""
    reach = (x[-1] - x[0]) / 2
    bends = theta[..., 2] * reach**2 > FLAT * np.abs(values).max(axis=-1)
    lowest: Floats = np.where(bends, -theta[..., 1] / (2 * np.where(bends, theta[..., 2], 1.0)), np.nan)
    return lowest


def _interval(draws: Floats) -> tuple[float, float]:
    """Both ends of the 95 % interval. Draws that are NaN count as beyond both."""
    low, high = (np.where(np.isnan(draws), beyond, draws) for beyond in (-np.inf, np.inf))
    return float(np.percentile(low, 2.5, method="lower")), float(np.percentile(high, 97.5, method="higher"))
