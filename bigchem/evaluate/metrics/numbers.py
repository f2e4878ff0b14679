"""Metrics of numbers written as text: errors and correlations, over the pairs in which both texts are numbers."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bigchem.evaluate.metrics.intervals import Statistic, mean_of

Floats = NDArray[np.float64]

LARGEST = 1e100
"""Larger numbers are not read: their squares would not be finite."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NO_SPREAD = 1e-12
"""A variance below this part of the mean square is rounding: all values are equal."""


def read(texts: Sequence[str]) -> Floats:
    """The number that each text is: [texts]. NaN for anything else: words, units, two numbers, nan, inf.

    Surrounding white space is ignored, and a minus sign U+2212 is a minus.
    """
    return np.array([_read(text.strip().replace("\N{MINUS SIGN}", "-")) for text in texts])


def _read(text: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else np.nan
    return number if abs(number) <= LARGEST else np.nan


def mean_absolute_error(wanted: Floats, made: Floats) -> Statistic:
    """wanted, made [examples]; pairs with NaN do not count, here and below."""
    return mean_of(np.abs(made - wanted))


def root_mean_squared_error(wanted: Floats, made: Floats) -> Statistic:
    rows, counted = _moments(wanted, made)
    return Statistic(rows[:, [0, 6]], _root_mean, counted)


def r2(wanted: Floats, made: Floats) -> Statistic:
    """1 - squared errors / squared deviations from the references' mean; undefined where all references are equal."""
    rows, counted = _moments(wanted, made)
    return Statistic(rows, _r2, counted)


def pearson(wanted: Floats, made: Floats) -> Statistic:
    """Pearson's r; undefined where all references, or all predictions, are equal."""
    rows, counted = _moments(wanted, made)
    return Statistic(rows, _pearson, counted)


def spearman(wanted: Floats, made: Floats) -> Statistic:
    """Spearman's rho, equal values sharing their mean rank; undefined as Pearson's r."""
    counted = ~np.isnan(wanted + made)
    rows = np.where(counted[:, None], np.stack([counted, wanted, made], axis=1), 0.0)
    return Statistic(rows, _spearman, counted, ordered=True)


def _moments(wanted: Floats, made: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """[examples, 7]: 1, x, y, x^2, y^2, x y, (prediction - reference)^2, and which examples count.

    x and y are taken from their medians: sums of squares around a far origin would lose all digits.
    """
    counted = ~np.isnan(wanted + made)
    x, y = (side - (np.median(side[counted]) if counted.any() else 0.0) for side in (wanted, made))
    rows = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y, (made - wanted) ** 2], axis=1)
    return np.where(counted[:, None], rows, 0.0), counted


def _root_mean(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(sums[..., 1] / sums[..., 0]))


def _r2(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1 - sums[..., 6] / _deviations(sums, 1, 3))


def _pearson(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        together = sums[..., 5] - sums[..., 1] * sums[..., 2] / sums[..., 0]
        r = together / np.sqrt(_deviations(sums, 1, 3)) / np.sqrt(_deviations(sums, 2, 4))
    return np.clip(r, -1, 1)


def _deviations(sums: Floats, first: int, second: int) -> Floats:
    """Squared deviations from the mean, NaN where there are none. first, second: columns of values and squares."""
    found = sums[..., second] - sums[..., first] ** 2 / sums[..., 0]
    return np.where(found > _NO_SPREAD * sums[..., second], found, np.nan)


def _spearman(rows: Floats, times: Floats) -> Floats:
    times = times * rows[:, 0]
    x, y = (_ranks(rows[:, column], times) for column in (1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((times * x * x).sum(axis=-1)) * np.sqrt((times * y * y).sum(axis=-1))
        return np.asarray(np.clip((times * x * y).sum(axis=-1) / spread, -1, 1))


def _ranks(values: Floats, times: Floats) -> Floats:
    """Mean ranks of values [examples] of which each occurs `times` [..., examples] times, less the mean of all ranks.

    Multiples of 1/2, so they are exact: a constant has ranks of 0.
    """
    places = np.argsort(values, kind="stable")
    ordered = values[places]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sizes = np.add.reduceat(times[..., places], starts, axis=-1)
    mean_ranks = np.cumsum(sizes, axis=-1) - sizes / 2 - times.sum(axis=-1, keepdims=True) / 2
    group = np.empty(len(values), dtype=np.int64)
    group[places] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    return np.asarray(mean_ranks[..., group])
