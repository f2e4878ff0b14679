"""Metrics as sums over examples, and bootstrap intervals of them.

Every metric of the protocol is a function of a sum over examples: a mean is total / count, corpus BLEU is a function of
summed n-gram counts. So a resample of the examples is one row of a matrix product, whatever the metric costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BLOCK = 1 << 22
"""Entries of the resampling matrix held at once: 32 MB of float64."""


@dataclass(frozen=True)
class Statistic:
    """A metric before it is summed up.

    rows [examples, k]: what each example adds. fold: sums [..., k] -> metric [...]; NaN where it is undefined.
    n: examples that count. note: what a reader of the value should know.
    """

    rows: Floats
    fold: Callable[[Floats], Floats]
    n: int
    note: str = ""

    @property
    def value(self) -> float:
        """The metric over all examples."""
        return float(self.fold(self.rows.sum(axis=0)))


def mean_of(values: Floats, note: str = "") -> Statistic:
    """The mean of values [examples]. NaN: this example does not count."""
    counted = ~np.isnan(values)
    rows = np.stack([np.where(counted, values, 0.0), counted.astype(np.float64)], axis=1)
    return Statistic(rows, _ratio, int(counted.sum()), note)


def ratio_of(parts: Floats, wholes: Floats) -> Statistic:
    """Summed parts [examples] by summed wholes [examples]. n: examples with a whole."""
    return Statistic(np.stack([parts, wholes], axis=1), _ratio, int(np.count_nonzero(wholes)))


def percentile_intervals(statistics: Sequence[Statistic], resamples: int, seed: int) -> list[tuple[float, float]]:
    """95 % percentile intervals (Efron 1979) of statistics over the same examples, from the same resamples.

    NaN, NaN where a statistic is undefined in every resample.
    """
    return [percentiles(values) for values in resampled(statistics, resamples, seed)]


def resampled(statistics: Sequence[Statistic], resamples: int, seed: int) -> list[Floats]:
    """The value of each statistic in each resample of the examples they share: [resamples] each.

    One seed and one number of examples give one drawing: values of two calls are paired.
    """
    if not statistics:
        return []
    rows = np.concatenate([statistic.rows for statistic in statistics], axis=1)
    sums = resampled_sums(rows, resamples, seed)
    ends = np.cumsum([statistic.rows.shape[1] for statistic in statistics])
    parts = np.split(sums, ends[:-1], axis=1)
    return [statistic.fold(part) for statistic, part in zip(statistics, parts, strict=True)]


def resampled_sums(rows: Floats, resamples: int, seed: int) -> Floats:
    """Column sums of rows [n, k] over n examples drawn with replacement: [resamples, k]."""
    n = len(rows)
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // n)
    blocks = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        blocks.append(times.astype(np.float64) @ rows)
    return np.concatenate(blocks)


def _ratio(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def percentiles(values: Floats) -> tuple[float, float]:
    """The 2.5 % and 97.5 % percentiles of the defined ones of values [resamples]; NaN, NaN where there is none."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)
