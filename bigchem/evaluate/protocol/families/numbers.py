"""The metrics of numbers."""

import math
from collections.abc import Callable

import numpy as np

from bigchem.evaluate.metrics import numbers
from bigchem.evaluate.metrics.intervals import Statistic, share_of
from bigchem.evaluate.protocol.metric import Floats, Metric, joined, noted, out_of
from bigchem.evaluate.protocol.pairs import Pairs


def _numbers(pairs: Pairs) -> tuple[Floats, Floats]:
    return numbers.read(pairs.references), numbers.read(pairs.best)


def _of_numbers(
    name: str,
    what: str,
    statistic: Callable[[Floats, Floats], Statistic],
    undefined: str,
    *,
    higher_is_better: bool = True,
    lowest: float = 0.0,
) -> Metric:
    def compute(pairs: Pairs) -> Statistic:
        wanted, made = _numbers(pairs)
        notes = joined(
            out_of(np.isnan(made), "predictions are not numbers: left out"),
            out_of(np.isnan(wanted), "references are not numbers: left out"),
        )
        return noted(statistic(wanted, made), notes)

    meaning = f"{what}, over the pairs in which both texts are numbers."
    highest = 1.0 if higher_is_better else math.inf
    return Metric(
        name,
        f"{name}/number-v1",
        meaning,
        compute,
        higher_is_better,
        undefined=undefined,
        lowest=lowest,
        highest=highest,
    )


_NO_PAIR = "no pair of numbers"
_NO_SPREAD = "undefined: fewer than two different numbers among references or predictions"

NUMBER = (
    Metric(
        "valid_numbers",
        "valid_numbers/decimal-v1",
        "Share of predictions that are a decimal number, with or without an exponent, of at most 1e100; surrounding "
        "white space is ignored.",
        lambda p: share_of(~np.isnan(_numbers(p)[1])),
    ),
    _of_numbers("mae", "Mean absolute error", numbers.mean_absolute_error, _NO_PAIR, higher_is_better=False),
    _of_numbers("rmse", "Root mean squared error", numbers.root_mean_squared_error, _NO_PAIR, higher_is_better=False),
    _of_numbers(
        "r2",
        "1 - squared errors / squared deviations of the references from their mean",
        numbers.r2,
        "undefined: fewer than two different numbers among the references",
        lowest=-math.inf,
    ),
    _of_numbers("pearson", "Pearson's r", numbers.pearson, _NO_SPREAD, lowest=-1.0),
    _of_numbers(
        "spearman", "Spearman's rho, equal numbers sharing their mean rank", numbers.spearman, _NO_SPREAD, lowest=-1.0
    ),
)
