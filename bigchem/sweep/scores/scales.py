"""A second scale for a metric's gains, on which a ceiling or a floor does not look like a trend (PURE).

Near its ceiling a score cannot gain much, so that gains shrink there even where sharing removes the same share of the
errors at every size. Shares are read in log-odds, errors and losses in logarithms.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bigchem.sweep.scores.estimate import Estimate, Floats
from bigchem.sweep.scores.records import Scale

Name = Literal["log-odds", "log"]


@dataclass(frozen=True)
class SecondScale:
    """log-odds: of a score between bounds. log: of an error or a loss, at least 0, so that gains are ratios."""

    name: Name
    lowest: float = 0.0
    highest: float = math.inf

    def values(self, values: Floats, n: int | None) -> Floats:
        """values [...] on the scale. n: examples, by which scores at a bound are half an example away (Haldane 1956);
        without it they are NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.name == "log":
                found = np.log(values)
            else:
                share = (values - self.lowest) / (self.highest - self.lowest)
                if n:
                    share = (share * n + 0.5) / (n + 1)
                found = np.log(share / (1 - share))
        return np.where(np.isfinite(found), found, np.nan)

    def estimate(self, estimate: Estimate, n: int | None) -> Estimate | None:
        """An estimate and its interval on the scale; None if it is not on it."""
        ends = [estimate.value, *(end for end in (estimate.low, estimate.high) if end is not None)]
        if self.name == "log-odds":  # an interval may reach beyond what the metric can be
            ends = [min(max(end, self.lowest), self.highest) for end in ends]
        value, *interval = (float(found) for found in self.values(np.array(ends), n))
        if math.isnan(value):
            return None
        if len(interval) < 2 or any(map(math.isnan, interval)):
            return Estimate(value)
        return Estimate(value, *interval)


def second_scale(scale: Scale) -> SecondScale | None:
    """A metric's other scale; None for one without a bound that it could reach."""
    if scale.bounded:
        return SecondScale("log-odds", scale.lowest, scale.highest)
    if scale.lowest == 0 and not scale.higher_is_better:
        return SecondScale("log")
    return None
