"""Whether the gain of a metric rises or falls with model size, over a family of tests (PURE)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from bigchem.sweep.analysis.gains import Gain, gains_of, means_of
from bigchem.sweep.analysis.size_means import Contrast, Line, SizeMeans
from bigchem.sweep.scores.aggregate import Cell, Key
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.scales import second_scale

LEVEL = 0.05
"""Of every test; for the family as a whole by Holm's correction."""

Verdict = Literal[
    "gain grows", "cost shrinks", "rises", "gain shrinks", "cost grows", "falls", "peaks", "one scale", "undecided"
]
"""Of a gain against size. grows, shrinks: the gain at the largest size is above zero; cost: it is below; rises, falls:
neither is certain there. peaks: no line fits, and the highest or lowest gain is at a size in the middle. one scale:
decided on the metric's own scale, but not on the second (scales.py): a ceiling or a floor may make the trend."""
RISING: tuple[Verdict, ...] = ("gain grows", "cost shrinks", "rises")
FALLING: tuple[Verdict, ...] = ("gain shrinks", "cost grows", "falls")


@dataclass(frozen=True)
class Trend:
    """A metric's gain against log10(parameters), at two or more sizes.

    slope: per decade. p: of a slope of zero; None if nothing is known of the noise of training. lack_of_fit: p of a
    line; None if it cannot be tested. corrected, corrected_fit: these p by Holm, each over its own family. second: the
    slope on the second scale; None: there is none. level: the gain at the largest size.
    """

    means: SizeMeans
    slope: Contrast
    level: Estimate
    p: float | None
    lack_of_fit: float | None
    second: Contrast | None
    corrected: float | None = None
    corrected_fit: float | None = None

    @property
    def sizes(self) -> int:
        """How many sizes were trained both ways."""
        return len(self.means.sizes)

    @property
    def per_decade(self) -> Estimate:
        """The slope, with its interval where the noise of training is known."""
        return Estimate(self.slope.value) if self.p is None else self.slope.estimate

    def per_decade_of(self, measure: Mapping[int, float]) -> Estimate | None:
        """The slope per decade of another measure of size, by number of parameters. None unless it is known for all
        sizes, and rises with them by a tenth or more."""
        known = [measure[int(size)] for size in self.means.sizes if int(size) in measure]
        if len(known) < self.sizes or any(b < 1.1 * a for a, b in pairwise(known)):
            return None
        slope = replace(self.means, sizes=np.array(known)).slope()
        return None if slope is None else Estimate(slope.value) if self.p is None else slope.estimate

    @property
    def line(self) -> Line | None:
        """For three or more sizes."""
        return self.means.line()

    @property
    def verdict(self) -> Verdict:
        """After Holm's correction."""
        return self._verdict(self.corrected, self.corrected_fit)

    @property
    def uncorrected(self) -> Verdict:
        """As if this were the only test."""
        return self._verdict(self.p, self.lack_of_fit)

    def _verdict(self, p: float | None, fit: float | None) -> Verdict:
        decided = p is not None and p < LEVEL
        # A peak is a finding, corrected like any other. To doubt a decided slope takes less: the test as it is.
        if self._peaks(self.lack_of_fit if decided else fit, decided):
            return "peaks"
        sign = int(np.sign(self.slope.value))
        if not decided:
            return "undecided"
        if self.second is not None and self.second.estimate.sign != sign:
            return "one scale"
        if sign > 0:
            return ("rises", "gain grows", "cost shrinks")[self.level.sign]
        return ("falls", "gain shrinks", "cost grows")[self.level.sign]

    def _peaks(self, fit: float | None, decided: bool) -> bool:
        """Whether no line fits and an extreme lies in the middle: with a decided slope, that in its direction."""
        if fit is None or fit >= LEVEL:
            return False
        highest, lowest = int(np.argmax(self.means.means)), int(np.argmin(self.means.means))
        ends = (0, self.sizes - 1)
        if decided:
            return (highest if self.slope.value > 0 else lowest) != self.sizes - 1
        return highest not in ends or lowest not in ends


def trends_of(cells: Sequence[Cell], gains: Iterable[Gain]) -> dict[Key, Trend]:
    """The trend of every metric with a gain at two or more sizes; a metric that is at one of its bounds everywhere has
    none, see constant. Holm's correction is over all of them."""
    by_key: dict[Key, list[Gain]] = {}
    for gain in gains:
        by_key.setdefault((gain.task, gain.metric), []).append(gain)
    flat = constant(cells)
    found = {key: _trend(key, group, cells) for key, group in by_key.items() if key not in flat and len(group) > 1}
    trends = {key: trend for key, trend in found.items() if trend is not None}
    slopes = holm({key: trend.p for key, trend in trends.items() if trend.p is not None})
    fits = holm({key: trend.lack_of_fit for key, trend in trends.items() if trend.lack_of_fit is not None})
    return {
        key: replace(trend, corrected=slopes.get(key), corrected_fit=fits.get(key)) for key, trend in trends.items()
    }


def _trend(key: Key, gains: Sequence[Gain], cells: Sequence[Cell]) -> Trend | None:
    means = means_of(gains)
    slope = None if means is None else means.slope()
    if means is None or slope is None:
        return None
    largest = max(gains, key=lambda gain: gain.parameters)
    return Trend(means, slope, largest.estimate, slope.p, means.lack_of_fit(), _on_second_scale(key, means, cells))


def _on_second_scale(key: Key, means: SizeMeans, cells: Sequence[Cell]) -> Contrast | None:
    """The slope there; None if the metric has no second scale, or if some size is not on it."""
    own = [cell for cell in cells if (cell.task, cell.metric) == key and cell.estimate is not None]
    scale = second_scale(own[0].scale)
    if scale is None:
        return None
    moved = means_of(gains_of([cell.on(scale) for cell in own]))
    if moved is None or not np.array_equal(moved.sizes, means.sizes):
        return None
    return moved.slope()


def constant(cells: Iterable[Cell]) -> dict[Key, float]:
    """Metrics with one and the same value, a bound of their scale, in every run of both regimes: they can show no gain.
    Returns that value."""
    values: dict[Key, set[float]] = {}
    bounds: dict[Key, tuple[float, float]] = {}
    for cell in cells:
        values.setdefault((cell.task, cell.metric), set()).update(e.value for e in cell.seeds.values())
        bounds[cell.task, cell.metric] = cell.scale.lowest, cell.scale.highest
    return {key: min(found) for key, found in values.items() if len(found) == 1 and min(found) in bounds[key]}


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """p values corrected for their number, so that the chance of any false finding is at most the level (Holm 1979)."""
    ordered = sorted(p_values, key=lambda key: p_values[key])
    corrected, highest = {}, 0.0
    for rank, key in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - rank) * p_values[key]))
        corrected[key] = highest
    return corrected
