"""A quantity's mean at each model size, with its noise, and what follows from it: slopes, lines, lack of fit (PURE).

Noise has two sources. Training: the scatter of the seeds of each size, which may differ between sizes; contrasts
combine it by Welch and Satterthwaite (Satterthwaite 1946), so that no size's variance stands for another's. Examples:
all sizes are judged on the same test examples, so this noise is correlated across sizes and is given as a covariance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from bigchem.sweep.scores.estimate import Estimate, Floats

MANY = 1e9
"""Degrees of freedom of a variance that is known."""
TINY = 1e-18
"""A variance that is rounding's."""


@dataclass(frozen=True)
class Variance:
    """A variance of training noise, estimated with `dof` degrees of freedom."""

    value: float
    dof: float


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of the sizes' means, its standard error and degrees of freedom. trained: whether its error
    includes training noise."""

    value: float
    error: float
    dof: float
    trained: bool = True

    @property
    def estimate(self) -> Estimate:
        """With its 95 % interval."""
        if math.isnan(self.error):
            return Estimate(self.value)
        return Estimate(self.value, self.value - self.half, self.value + self.half)

    @property
    def half(self) -> float:
        """Half the interval's width; NaN if the noise is unknown."""
        return quantile(0.975, self.dof) * self.error

    @property
    def p(self) -> float | None:
        """Two-sided, of being zero; None if the noise of training is unknown."""
        if math.isnan(self.error) or not self.trained:
            return None
        if self.error == 0:
            return float(self.value == 0)
        from scipy.special import stdtr

        return float(2 * stdtr(self.dof, -abs(self.value) / self.error))

    def minus(self, other: "Contrast") -> "Contrast":
        """The difference of two independent contrasts."""
        a, b = self.error**2, other.error**2
        squares = a**2 / self.dof + b**2 / other.dof
        dof = (a + b) ** 2 / squares if squares > 0 else MANY
        return Contrast(self.value - other.value, math.sqrt(a + b), dof, self.trained and other.trained)

    def detectable(self, power: float = 0.8) -> float:
        """The smallest true value that a two-sided test at 5 % finds with this probability; NaN if the noise is
        unknown."""
        return (quantile(0.975, self.dof) + quantile(power, self.dof)) * self.error


def quantile(p: float, dof: float) -> float:
    """Of Student's t."""
    from scipy.special import stdtrit  # here: `bigchem sweep results` imports this module without needing scipy

    return float(stdtrit(min(dof, MANY), p))


@dataclass(frozen=True)
class SizeMeans:
    """sizes [k]: numbers of parameters, ascending. means [k]. training: of each size, the variances whose sum is that
    of its mean; none where one seed was trained. examples [k, k]: covariance of the means over resamples of the test
    examples; None: unknown."""

    sizes: Floats
    means: Floats
    training: tuple[tuple[Variance, ...], ...]
    examples: Floats | None = field(default=None, compare=False)

    @property
    def decades(self) -> Floats:
        """log10(size / pivot) [k]: about the sizes' geometric mean."""
        logs = np.log10(self.sizes)
        centred: Floats = logs - logs.mean()
        return centred

    @property
    def pivot(self) -> float:
        """The sizes' geometric mean, in parameters."""
        return float(10 ** np.log10(self.sizes).mean())

    def contrast(self, weights: ArrayLike) -> Contrast:
        """sum(weights * means) for weights [k].

        A size of one seed has the variance pooled over the others. If every size has one seed, the scatter about the
        line stands for both sources of noise, unless the examples' is larger; with two sizes only the examples' is
        known.
        """
        w = np.asarray(weights, dtype=float)
        value = float(w @ self.means)
        judged = 0.0 if self.examples is None else max(0.0, float(w @ self.examples @ w))
        parts = [Variance(float(w**2 @ variances), dof) for variances, dof in self._training()]
        if any(self.training):
            total = judged + sum(part.value for part in parts)
            squares = sum(part.value**2 / part.dof for part in parts)
            return Contrast(value, math.sqrt(total), total**2 / squares if squares > 0 else MANY)
        known = Contrast(value, math.nan if self.examples is None else math.sqrt(judged), MANY, trained=bool(parts))
        if not parts:
            return known
        scatter = Contrast(value, math.sqrt(parts[0].value), parts[0].dof)
        return known if known.half > scatter.half else scatter

    def _training(self) -> list[tuple[Floats, float]]:
        """Independent parts of the means' training noise: variances [k] and their degrees of freedom."""
        k = len(self.sizes)
        measured = [v for each in self.training for v in each]
        if not measured:
            return [(np.full(k, self._scatter()), k - 2)] if k > 2 else []
        parts = [(np.eye(k)[i] * v.value, v.dof) for i, each in enumerate(self.training) for v in each]
        single = np.array([not each for each in self.training], dtype=float)
        if single.any():
            dof = sum(v.dof for v in measured)
            # A mean's variance times its seeds is a seed's; a gain of unequal seeds has two parts, one for each side.
            pooled = sum(v.value * (v.dof + 1) * v.dof for v in measured) / dof * max(map(len, self.training))
            parts.append((single * pooled, dof))
        return parts

    def _scatter(self) -> float:
        """The variance of the means about their line, for three or more sizes."""
        x = self.decades
        residuals = self.means - self.means.mean() - (self.means @ x) / (x @ x) * x
        return float(residuals @ residuals) / (len(self.sizes) - 2)

    @property
    def seed_variance(self) -> Floats | None:
        """The variance of one seed about its size's mean [k]; of sizes with one seed, the others' mean. None if all
        have one seed."""
        found = [sum(v.value * (v.dof + 1) for v in each) if each else math.nan for each in self.training]
        return None if all(map(math.isnan, found)) else np.where(np.isnan(found), np.nanmean(found), found)

    @property
    def slope_weights(self) -> Floats:
        """The least-squares slope per decade as a contrast [k]: every size counts once."""
        x = self.decades
        return x / (x @ x)

    def slope(self) -> Contrast | None:
        """Per decade of parameters; with two sizes their difference over their distance. None for one size."""
        return self.contrast(self.slope_weights) if len(self.sizes) > 1 else None

    def line(self) -> "Line | None":
        """The least-squares line; None for fewer than three sizes."""
        return Line(self) if len(self.sizes) >= 3 else None

    def lack_of_fit(self) -> float | None:
        """p of the means lying on a line, by an F test of the contrasts that a line leaves at zero. None for fewer than
        three sizes, or if all have one seed: then the scatter is all that is known of the noise."""
        if len(self.sizes) < 3 or not any(self.training):
            return None
        from scipy.special import fdtrc

        basis = np.vander(self.decades, increasing=True)
        beyond = np.linalg.qr(basis)[0][:, 2:]  # [k, k - 2]
        noise = sum(np.diag(variances) for variances, _ in self._training())
        covariance = beyond.T @ (noise + (0.0 if self.examples is None else self.examples)) @ beyond
        values = self.means @ beyond
        if np.abs(covariance).max() < TINY:
            return float(np.abs(values).max() < math.sqrt(TINY))
        dof = min(self.contrast(weights).dof for weights in beyond.T)
        return float(fdtrc(len(values), dof, float(values @ np.linalg.pinv(covariance) @ values) / len(values)))


@dataclass(frozen=True)
class Line:
    """The least-squares line through means of three or more sizes, against log10(parameters)."""

    means: SizeMeans

    @property
    def slope(self) -> Estimate:
        """Per decade of parameters, with its 95 % interval."""
        return self.means.contrast(self.means.slope_weights).estimate

    @property
    def sizes(self) -> int:
        """How many sizes it rests on."""
        return len(self.means.sizes)

    def __call__(self, parameters: ArrayLike) -> Floats:
        """The line's values at these sizes."""
        x = np.log10(np.asarray(parameters, dtype=float) / self.means.pivot)
        height: Floats = self.means.means.mean() + (self.means.means @ self.means.slope_weights) * x
        return height

    def band(self, parameters: ArrayLike) -> tuple[Floats, Floats]:
        """Both ends of the line's 95 % interval at each of n sizes; NaN if the noise is unknown."""
        x = np.log10(np.asarray(parameters, dtype=float) / self.means.pivot)
        count = len(self.means.sizes)
        found = [self.means.contrast(1 / count + at * self.means.slope_weights).estimate for at in np.atleast_1d(x)]
        ends = [(math.nan, math.nan) if e.low is None or e.high is None else (e.low, e.high) for e in found]
        return np.array([low for low, _ in ends]), np.array([high for _, high in ends])


def of_seeds(values: Sequence[float]) -> tuple[Variance, ...]:
    """The variance of the mean over seeds; none for one seed."""
    if len(values) < 2:
        return ()
    return (Variance(float(np.var(values, ddof=1)) / len(values), len(values) - 1),)


def size_means(
    means: Mapping[int, float], training: Mapping[int, tuple[Variance, ...]], examples: Floats | None = None
) -> SizeMeans:
    """By number of parameters, in any order. examples: [k, k] in ascending order of size."""
    sizes = sorted(means)
    return SizeMeans(
        np.array(sizes, dtype=float),
        np.array([means[size] for size in sizes]),
        tuple(training[size] for size in sizes),
        examples,
    )
