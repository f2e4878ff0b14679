"""Metrics as sums over examples, and their 95 % intervals.

Almost every metric is a function of a sum over examples: a mean is total / count, corpus BLEU a function of summed
n-gram counts. A resample of the examples is then one row of a matrix product, whatever the metric costs. Metrics of the
examples' order, such as an AUC, are functions of how often each example was drawn.

A share of examples gets Wilson's interval, which also holds for rare outcomes; everything else a percentile bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BLOCK = 1 << 20
"""Entries of the resampling matrix in memory at a time: 8 MB of float64."""
ENOUGH = 10
"""Fewest examples for a bootstrap: with one example, every resample is that example."""
_ROUNDING = 1e-9
"""Relative rounding error of a sum in another order: resamples that differ by less are equal."""
_Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""

Kind = Literal["share", "fraction", "number"]
"""share: each example is a hit or a miss. fraction: a mean of values in [0, 1], or a part of a whole. number: anything
else."""
Method = Literal["Wilson", "Bonett-Price", "bootstrap", "too few", ""]
"""How an interval was computed, or that there are too few examples; empty if there is none."""


@dataclass(frozen=True)
class Statistic:
    """A metric before summation.

    rows [examples, k]: what each example adds. fold: sums [..., k] -> metric [...]; NaN where undefined. counted
    [examples]: which examples count. note: a caveat for readers of the value. ordered: the metric depends on the order
    of the examples, which no sum gives; fold is then (rows, times [..., examples]: how often each was drawn) ->
    metric [...].
    """

    rows: Floats
    fold: Callable[..., Floats]
    counted: NDArray[np.bool_]
    kind: Kind = "number"
    note: str = ""
    ordered: bool = False

    @property
    def n(self) -> int:
        """Number of examples that count."""
        return int(np.count_nonzero(self.counted))

    @property
    def value(self) -> float:
        """The metric over all examples."""
        if self.ordered:
            return float(self.fold(self.rows, np.ones(len(self.rows))))
        return float(self.fold(self.rows.sum(axis=0)))

    def of(self, members: NDArray[np.bool_]) -> Statistic:
        """The metric over a subset of the examples; members [examples]."""
        return replace(self, rows=self.rows[members], counted=self.counted[members], note="")


@dataclass(frozen=True)
class Interval:
    """Both ends; NaN if there is no interval."""

    low: float = math.nan
    high: float = math.nan
    method: Method = ""


def share_of(hits: NDArray[np.bool_], note: str = "") -> Statistic:
    """The share of hits [examples]."""
    return replace(mean_of(hits.astype(np.float64), note), kind="share")


def mean_of(values: Floats, note: str = "", kind: Kind = "number") -> Statistic:
    """The mean of values [examples]. Examples with NaN do not count."""
    counted = ~np.isnan(values)
    rows = np.stack([np.where(counted, values, 0.0), counted.astype(np.float64)], axis=1)
    return Statistic(rows, _ratio, counted, kind, note)


def ratio_of(parts: Floats, wholes: Floats, kind: Kind = "fraction") -> Statistic:
    """Sum of parts [examples] / sum of wholes [examples]. Examples with NaN or a whole of 0 do not count."""
    rows = np.nan_to_num(np.stack([parts, wholes], axis=1))
    return Statistic(rows, _ratio, rows[:, 1] != 0, kind)


def macro(parts: Sequence[Statistic], note: str = "") -> Statistic:
    """The mean of statistics of one kind over the same examples, each of which weighs the same; those that are
    undefined do not count."""
    first = parts[0]
    ends = np.cumsum([part.rows.shape[1] for part in parts])[:-1]

    def of_sums(sums: Floats) -> Floats:
        return _defined_mean([part.fold(own) for part, own in zip(parts, np.split(sums, ends, axis=-1), strict=True)])

    def of_order(rows: Floats, times: Floats) -> Floats:
        sides = zip(parts, np.split(rows, ends, axis=1), strict=True)
        return _defined_mean([part.fold(own, times) for part, own in sides])

    return Statistic(
        np.concatenate([part.rows for part in parts], axis=1),
        of_order if first.ordered else of_sums,
        np.any([part.counted for part in parts], axis=0),
        "number" if first.kind == "number" else "fraction",
        note,
        first.ordered,
    )


def _defined_mean(values: Sequence[Floats]) -> Floats:
    """The mean over a list of arrays, NaN ignored; NaN where nothing is left."""
    stacked = np.stack(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(stacked, axis=0) / (~np.isnan(stacked)).sum(axis=0))


def intervals(statistics: Sequence[Statistic], resamples: int, seed: int) -> list[Interval]:
    """The 95 % interval of each statistic; all are over the same examples.

    Wilson's for shares. For the rest, a percentile bootstrap with shared `resamples`, if at least ENOUGH examples
    count. Where all resamples agree, fractions get Wilson's too: among values in [0, 1] of one mean, hits and misses
    vary most.
    """
    drawn = [one for one in statistics if one.kind != "share" and one.n >= ENOUGH]
    found = iter(percentile_intervals(drawn, resamples, seed))
    return [_interval(one, found) for one in statistics]


def _interval(statistic: Statistic, drawn: Iterator[tuple[float, float]]) -> Interval:
    if statistic.n == 0:
        return Interval()
    if statistic.kind == "share":
        return Interval(*wilson(statistic.value, statistic.n), "Wilson")
    if statistic.n < ENOUGH:
        return Interval(method="too few")
    low, high = next(drawn)
    if high - low > _ROUNDING * abs(high):
        return Interval(low, high, "bootstrap")
    if statistic.kind == "fraction" and not math.isnan(statistic.value):
        return Interval(*wilson(statistic.value, statistic.n), "Wilson")
    return Interval()


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval (1927) of a share of n > 0 examples, without continuity correction."""
    z2 = _Z**2 / n
    middle = share + z2 / 2
    half = _Z / math.sqrt(n) * math.sqrt(share * (1 - share) + z2 / 4)
    low, high = (middle - half) / (1 + z2), (middle + half) / (1 + z2)
    return low if share > 0 else 0.0, high if share < 1 else 1.0  # exactly, despite rounding


def paired_intervals(pairs: Sequence[tuple[Statistic, Statistic]], resamples: int, seed: int) -> list[Interval]:
    """The 95 % interval of each difference, second - first, of two statistics over the same examples.

    Bonett and Price's for shares of the same examples; for the rest a paired bootstrap (Koehn 2004), if at least ENOUGH
    examples count in each.
    """
    drawn = [pair for pair in pairs if not _shares(*pair) and min(one.n for one in pair) >= ENOUGH]
    first, second = (resampled([pair[side] for pair in drawn], resamples, seed) for side in (0, 1))
    found = iter([percentiles(b - a) for a, b in zip(first, second, strict=True)])
    return [_paired_interval(*pair, found) for pair in pairs]


def _shares(first: Statistic, second: Statistic) -> bool:
    same = first.kind == second.kind == "share"
    return same and first.n > 0 and bool(np.array_equal(first.counted, second.counted))


def _paired_interval(first: Statistic, second: Statistic, drawn: Iterator[tuple[float, float]]) -> Interval:
    if _shares(first, second):
        hits = (one.rows[one.counted, 0] > 0 for one in (first, second))
        return Interval(*paired_share(*hits), "Bonett-Price")
    if min(first.n, second.n) < ENOUGH:
        return Interval(method="too few")
    return Interval(*next(drawn), "bootstrap")


def paired_share(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """The 95 % interval of the difference, second - first, of two shares over the same examples [examples].

    Bonett and Price (2012): Wald's interval after adding one example to each discordant count. A bootstrap calls four
    discordant examples, all on one side, significant; McNemar's exact test does not (p = .125).
    """
    n = len(first) + 2
    won, lost = (1 + np.count_nonzero(a & ~b) for a, b in ((second, first), (first, second)))
    difference = (won - lost) / n
    half = _Z * math.sqrt(((won + lost) / n - difference**2) / n)
    return max(-1.0, difference - half), min(1.0, difference + half)


def percentile_intervals(statistics: Sequence[Statistic], resamples: int, seed: int) -> list[tuple[float, float]]:
    """95 % percentile intervals (Efron 1979) of statistics over the same examples, from shared resamples.

    NaN, NaN where a statistic is undefined in every resample.
    """
    return [percentiles(values) for values in resampled(statistics, resamples, seed)]


def resampled(statistics: Sequence[Statistic], resamples: int, seed: int) -> list[Floats]:
    """The value of each statistic in each resample of the shared examples: [resamples] each.

    The draw depends only on the seed and the number of examples, so values of two calls are paired.
    """
    if not statistics:
        return []
    summed = [statistic for statistic in statistics if not statistic.ordered]
    rows = np.concatenate([np.empty((len(statistics[0].rows), 0)), *(one.rows for one in summed)], axis=1)
    parts = iter(np.split(resampled_sums(rows, resamples, seed), np.cumsum([one.rows.shape[1] for one in summed]), 1))
    return [
        np.concatenate([one.fold(one.rows, times) for times in _draws(len(rows), resamples, seed)])
        if one.ordered
        else one.fold(next(parts))
        for one in statistics
    ]


def resampled_sums(rows: Floats, resamples: int, seed: int) -> Floats:
    """Column sums of rows [n, k] over n examples drawn with replacement: [resamples, k]."""
    return np.concatenate([times @ rows for times in _draws(len(rows), resamples, seed)])


def _draws(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each of n examples is in each resample: blocks of [resamples, n]."""
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _ratio(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def percentiles(values: Floats) -> tuple[float, float]:
    """The 2.5 % and 97.5 % percentiles of values [resamples], NaN ignored; NaN, NaN if nothing is left."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)
