"""Curves of a metric against model size: three shapes, the choice between them, and bands (PURE: numpy and scipy).

linear:     height + slope * log10(N / pivot)
power:      floor + factor * (N / pivot)^-exponent, the form of Hoffmann et al. 2022 (arXiv 2203.15556) for one
            variable. The floor is the limit: for a rising metric a ceiling, with a negative factor.
saturating: top / (1 + (N / half)^-steepness), a logistic curve in log N (the Hill equation): zero for small models,
            `top` for large ones, as Owen 2024 fits benchmark scores (arXiv 2401.04757).

Every point of a grid over exponents, or halves and steepnesses, is tried (shapes.py); scipy's least squares
refines the best with a soft-L1 loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from bigchem.sweep.analysis.fits.shapes import EXPONENTS, SHAPES, STEEPNESS, Shape, height, search
from bigchem.sweep.scores.estimate import MIN_SIZES_FOR_LINE, Z95, Estimate, Floats

MIN_SIZES_FOR_CURVE = 4
"""The curved shapes have three parameters: leaving one size out must leave three."""
DRAWS: dict[Shape, int] = {"linear": 4000, "power": 400, "saturating": 400}
"""Bootstrap samples. Lines are cheap."""
_ROBUST_FROM = 2.0
"""Residuals count squared up to about this many standard deviations, linearly beyond."""


@dataclass(frozen=True)
class Observation:
    """A metric at one size: one estimate per seed, each with the interval over test examples."""

    parameters: float
    seeds: tuple[Estimate, ...]


@dataclass(frozen=True)
class Curve:
    """A fitted shape.

    parameters: by name, with 95 % intervals if the noise is known; half is in model parameters, slope per decade. loo:
    for each shape tried, the root mean square error of predicting a left-out size. sizes: how many were measured.
    dof: degrees of freedom behind the noise estimate (0: unknown, or known for the test examples only).
    """

    shape: Shape
    parameters: dict[str, Estimate]
    loo: dict[Shape, float]
    pivot: float
    sizes: int
    dof: int
    _theta: Floats = field(repr=False, compare=False)
    _draws: Floats = field(repr=False, compare=False)

    def __call__(self, parameters: ArrayLike) -> Floats:
        """The curve's values at these sizes."""
        return height(self.shape, self._theta, np.log10(np.asarray(parameters, dtype=float) / self.pivot))

    def at(self, parameters: float) -> Estimate:
        """The curve at one size, with the 95 % interval of the curve (not of a new run) if the noise is known."""
        low, high = self.band([parameters])
        value = float(self(parameters))
        return Estimate(value) if math.isnan(low[0]) else Estimate(value, float(low[0]), float(high[0]))

    def band(self, parameters: ArrayLike) -> tuple[Floats, Floats]:
        """Both ends of the 95 % interval at each of n sizes; NaN if the noise is unknown."""
        x = np.log10(np.asarray(parameters, dtype=float) / self.pivot)
        if not len(self._draws):
            return np.full(x.shape, np.nan), np.full(x.shape, np.nan)
        low, high = np.percentile(height(self.shape, self._draws[:, None], x), [2.5, 97.5], axis=0)
        return low, high

    @property
    def formula(self) -> str:
        """The curve in one line of text, N in parameters."""
        first, second, third = (float(number) for number in self._theta)
        added = f"{first:.4g} {'-' if second < 0 else '+'} {abs(second):.4g}"
        if self.shape == "linear":
            return f"{added} * log10(N / {self.pivot:.3g})"
        if self.shape == "power":
            return f"{added} * (N / {self.pivot:.3g})^{-third:.3g}"
        return f"{first:.4g} / (1 + (N / {self.pivot * 10**second:.3g})^{-third:.3g})"


def curve(observations: Sequence[Observation], seed: int = 0) -> Curve | None:
    """The shape that best predicts a left-out size, the simpler one on a tie; with three sizes only a line, with fewer
    None.

    seed: of the bootstrap.
    """
    sizes = len({o.parameters for o in observations})
    if sizes < MIN_SIZES_FOR_LINE:
        return None
    shapes: tuple[Shape, ...] = tuple(SHAPES) if sizes >= MIN_SIZES_FOR_CURVE else ("linear",)
    points = _Points.of(observations)
    loo = {shape: _leave_one_out(shape, points) for shape in shapes}
    return fit(min(shapes, key=lambda shape: loo[shape]), observations, loo, seed)


def fit(
    shape: Shape, observations: Sequence[Observation], loo: dict[Shape, float] | None = None, seed: int = 0
) -> Curve:
    """Fits this shape to observations of at least as many sizes as it has parameters. loo: of the shapes compared.

    Each size counts once, however many seeds it has. Intervals come from a parametric bootstrap: example and seed noise
    is redrawn about the fitted curve, and the curve is refitted. (Drawing three of three seeds with replacement would
    give intervals far too narrow.)
    """
    points = _Points.of(observations)
    theta = _solve(shape, points)
    draws = _redraw(shape, theta, points, np.random.default_rng(seed))
    names = SHAPES[shape]
    columns = [draws[:, i] for i in range(3)]
    if shape == "saturating":
        theta_shown, columns[1] = [theta[0], points.pivot * 10 ** theta[1], theta[2]], points.pivot * 10 ** columns[1]
    else:
        theta_shown = list(theta)
    found = {
        name: Estimate(float(value), *(float(end) for end in np.percentile(column, [2.5, 97.5])))
        if len(column)
        else Estimate(float(value))
        for name, value, column in zip(names, theta_shown, columns, strict=True)
        if name
    }
    sizes = len(np.unique(points.x))
    dof = points.training[1] or max(0, _residual_dof(shape, sizes))
    return Curve(shape, found, loo or {}, points.pivot, sizes, dof, theta, draws)


@dataclass(frozen=True)
class _Points:
    """Seeds as points, sorted by x: x = log10(N / pivot), y, weight (1 / seeds of the size), examples: standard
    deviation of the test examples' noise (NaN: unknown)."""

    x: Floats
    y: Floats
    weight: Floats
    examples: Floats
    pivot: float

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> _Points:
        ordered = sorted(observations, key=lambda o: o.parameters)
        sizes = np.array([o.parameters for o in ordered for _ in o.seeds], dtype=float)
        pivot = float(10 ** np.log10(np.unique(sizes)).mean())  # the geometric mean, for well-conditioned fits
        seeds = [e for o in ordered for e in o.seeds]
        examples = [math.nan if e.margins is None else sum(e.margins) / (2 * Z95) for e in seeds]
        weight = np.array([1 / int((sizes == size).sum()) for size in sizes])
        return cls(np.log10(sizes / pivot), np.array([e.value for e in seeds]), weight, np.array(examples), pivot)

    def without(self, x: float) -> _Points:
        rest = self.x != x
        return _Points(self.x[rest], self.y[rest], self.weight[rest], self.examples[rest], self.pivot)

    @property
    def means(self) -> tuple[Floats, Floats]:
        """Distinct x, and the mean over seeds at each."""
        distinct = np.unique(self.x)
        return distinct, np.array([self.y[self.x == x].mean() for x in distinct])

    @property
    def training(self) -> tuple[float, int]:
        """The variance over seeds, pooled over sizes, and its degrees of freedom (0: one seed everywhere)."""
        distinct, means = self.means
        dof = len(self.x) - len(distinct)
        squares = float(((self.y - means[np.searchsorted(distinct, self.x)]) ** 2).sum())
        return (squares / dof if dof else 0.0), dof


def _solve(shape: Shape, points: _Points) -> Floats:
    """theta [3] with the smallest soft-L1 loss."""
    from scipy.optimize import least_squares  # here: takes half a second, which only fits need

    scale = _ROBUST_FROM * _deviation(shape, points)
    start = search(shape, points.x, points.y[None], points.weight, scale)[0]
    free = 2 if shape == "linear" else 3
    span = points.x.max() - points.x.min()
    limits = {
        "linear": (-np.inf, np.inf),
        "power": ([-np.inf, -np.inf, EXPONENTS[0] / 2], [np.inf, np.inf, 2 * EXPONENTS[-1]]),
        "saturating": ([-np.inf, -span - 3.0, -2 * STEEPNESS[-1]], [np.inf, span + 3.0, 2 * STEEPNESS[-1]]),
    }[shape]

    def residuals(theta: Floats) -> Floats:
        return height(shape, np.append(theta, np.zeros(3 - free)), points.x) - points.y

    def soft_l1(squares: Floats) -> Floats:
        root = np.sqrt(1 + squares)
        return np.asarray(points.weight * np.array([2 * (root - 1), 1 / root, -0.5 / root**3]))

    found = least_squares(residuals, start[:free], loss=soft_l1, f_scale=scale, bounds=limits, x_scale="jac")
    return np.append(found.x, np.zeros(3 - free))


def _deviation(shape: Shape, points: _Points) -> float:
    """The standard deviation of one point, from examples and seeds; with one seed everywhere, that of the residuals if
    larger."""
    examples = points.examples[~np.isnan(points.examples)]
    variance, dof = points.training
    known = math.hypot(float(np.median(examples)) if len(examples) else 0.0, math.sqrt(variance))
    if not dof:
        theta = search(shape, points.x, points.y[None], points.weight)[0]
        squares = float(((height(shape, theta, points.x) - points.y) ** 2).sum())
        known = max(known, math.sqrt(squares / max(1, _residual_dof(shape, len(points.x)))))
    return max(known, 1e-6 * float(np.ptp(points.y)), 1e-12)


def _residual_dof(shape: Shape, sizes: int) -> int:
    """Degrees of freedom left after fitting a shape."""
    return sizes - sum(name != "" for name in SHAPES[shape])


def _leave_one_out(shape: Shape, points: _Points) -> float:
    distinct, means = points.means
    rests = [points.without(x) for x in distinct]
    errors = [height(shape, _solve(shape, r), x) - mean for r, x, mean in zip(rests, distinct, means, strict=True)]
    return math.sqrt(float(np.mean(np.square(errors))))


def _redraw(shape: Shape, theta: Floats, points: _Points, random: np.random.Generator) -> Floats:
    """theta of DRAWS bootstrap samples, [draws, 3], or [0, 3] if the noise is unknown.

    With several seeds, the noise is the examples' plus, by Student's t, the seeds', widened by Birge's ratio where the
    sizes scatter more about the curve than both explain (Birge 1932). With one seed, it is the scatter about the curve,
    by Student's t, or the examples' noise if larger.
    """
    x, means = points.means
    seeds = np.array([(points.x == size).sum() for size in x])
    examples = np.array([points.examples[points.x == size].mean() for size in x])
    variance, dof = points.training
    expected = height(shape, theta, x)
    squares = (means - expected) ** 2
    left = _residual_dof(shape, len(x))
    if dof:
        known = np.nan_to_num(examples)
        total = known**2 + variance / seeds
        ratio = math.sqrt(float((squares / total.clip(1e-300)).sum()) / left) if left and total.any() else 1.0
        fixed, student = known * max(1.0, ratio), np.sqrt(variance / seeds) * max(1.0, ratio)
    elif left:
        fixed, student = np.zeros(len(x)), np.fmax(math.sqrt(float(squares.sum()) / left), examples)
        dof = left
    elif np.isnan(examples).any():
        return np.zeros((0, 3))
    else:
        fixed, student, dof = examples, np.zeros(len(x)), 1
    shape_of = (DRAWS[shape], len(x))
    spread = np.sqrt(dof / random.chisquare(dof, size=(DRAWS[shape], 1)))
    noise = fixed * random.normal(size=shape_of) + student * random.normal(size=shape_of) * spread
    return search(shape, x, expected + noise, np.ones(len(x)))
