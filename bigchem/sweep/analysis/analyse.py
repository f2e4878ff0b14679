"""Analyses a table of scores: cells, gains of sharing, slopes, curves, and the conclusions they support (PURE)."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bigchem.base.errors import UserError
from bigchem.sweep.analysis.axes import AxisScores, axis_scores
from bigchem.sweep.analysis.claim import claim
from bigchem.sweep.analysis.conclusions import (
    cautions,
    constant_note,
    diverged_note,
    impossible_values,
    pool_sentences,
    sentences,
    unpooled_headlines,
    unpooled_note,
)
from bigchem.sweep.analysis.diverged import diverged
from bigchem.sweep.analysis.fits.curves import Curve, Observation, curve
from bigchem.sweep.analysis.gains import Gain, Pool, gains_of, pools_of
from bigchem.sweep.analysis.isoflop import IsoFlop, isoflops_of
from bigchem.sweep.analysis.transfer import Effect, effects_of, transfer_sentences
from bigchem.sweep.analysis.trends import Trend, constant, trends_of
from bigchem.sweep.scores.aggregate import Cell, Draws, Key, cells_of, chosen_metrics, headlines, size_name
from bigchem.sweep.scores.estimate import MIN_SIZES_FOR_LINE
from bigchem.sweep.scores.records import LOSS, REGIMES, SIZE_AXES, Regime, Results, SizeAxis
from bigchem.tasks import Tasks

A_DECADE = 10.0
"""How far beyond its measured sizes a curve may be read without --beyond-a-decade."""


@dataclass(frozen=True)
class Analysis:
    """Everything that the report shows. Missing cells and gains are absent.

    claim: whether the data support a gain of sharing that grows with size. headline: each task's representative metric.
    shown: metrics to draw. trends: gain against size, per key. pools: gains by kind of task. curves: metric against
    size, per key and regime. beyond: further sizes at which the curves are read. transfer: effects of single tasks, if
    shared models were trained on several mixtures. axes: scores against each axis that has several values.
    x: a further measure of size, against which metrics are drawn too. isoflops: metrics at equal training FLOPs, if
    three sizes have them.
    """

    results: Results
    cells: tuple[Cell, ...]
    gains: tuple[Gain, ...]
    trends: dict[Key, Trend]
    pools: tuple[Pool, ...]
    curves: dict[tuple[str, str, Regime], Curve]
    headline: dict[str, str]
    shown: tuple[Key, ...]
    claim: str
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    beyond: tuple[float, ...] = ()
    transfer: tuple[Effect, ...] = ()
    axes: tuple[AxisScores, ...] = ()
    x: SizeAxis | None = None
    isoflops: tuple[IsoFlop, ...] = ()

    def cells_of(self, key: Key, regime: Regime) -> list[Cell]:
        """A metric's cells that have a value, by size."""
        return [c for c in self.cells if (c.task, c.metric) == key and c.regime == regime and c.estimate is not None]

    def gains_of(self, key: Key) -> list[Gain]:
        """A metric's gains, by size."""
        return [g for g in self.gains if (g.task, g.metric) == key]

    @property
    def sizes(self) -> list[int]:
        """Distinct numbers of parameters, ascending."""
        return sorted({cell.parameters for cell in self.cells})


def analyse(
    results: Results,
    metrics: Sequence[str] = (),
    *,
    draws: Draws | None = None,
    extrapolate: Sequence[float] = (),
    beyond_a_decade: bool = False,
    keep_diverged: bool = False,
    x: SizeAxis | None = None,
) -> Analysis:
    """metrics: "TASK:METRIC" to draw instead of each task's headline and loss. draws: see ExampleDraws. keep_diverged:
    include runs that diverged (diverged.py).

    extrapolate: further sizes at which to read the curves; UserError if one is more than a decade beyond the measured
    sizes of a drawn curve, unless allowed.
    """
    check(results, metrics, extrapolate, beyond_a_decade, x)
    isoflops, unused = isoflops_of(results, draws, keep_diverged=keep_diverged)
    odd = diverged([*results.scores, *results.apart])
    if not keep_diverged:
        results = results.without(one.run for one in odd)
    tasks = results.tasks
    cells = cells_of(results.scores, tasks, draws)
    gains, flat = gains_of(cells), constant(cells)
    headline = headlines(cells, tasks)
    keys = list(dict.fromkeys((c.task, c.metric) for c in cells))
    trends = trends_of(cells, gains)
    shown = _shown(metrics, cells, tasks)
    limits = cautions(cells, gains, headline, results)
    if metrics:  # the pools, too, are of the requested metrics
        headline = {**headline, **{task: metric for task, metric in reversed(shown) if metric != LOSS}}
    pools, unpooled = pools_of(gains, headline, tasks, flat), unpooled_headlines(gains, headline)
    overall, *each = sentences(headline, gains, trends, tasks, flat) or (None,)
    transfer = effects_of([*results.scores, *results.apart], headline, draws) if results.apart else ()
    lines = tuple(filter(None, (overall, *pool_sentences(pools), *each, *transfer_sentences(transfer))))
    curves = _curves(cells, keys)
    beyond = tuple(sorted(set(extrapolate)))
    scales = {(c.task, c.metric): c.scale for c in cells}
    notes = (
        *limits,
        *constant_note(flat),
        *unpooled_note(unpooled),
        *impossible_values(curves, scales, shown, beyond),
        *results.notes,
        *unused,
    )
    chosen = shown if metrics else ()
    first = (*diverged_note(odd, kept=keep_diverged), *results.caveats, claim(trends, tasks, not gains, chosen))
    axes, text = axis_scores(results.by_axis), " ".join(first)
    return Analysis(
        results,
        cells,
        gains,
        trends,
        pools,
        curves,
        headline,
        shown,
        text,
        lines,
        notes,
        beyond,
        transfer,
        axes,
        x,
        isoflops,
    )


def _curves(cells: Sequence[Cell], keys: Sequence[Key]) -> dict[tuple[str, str, Regime], Curve]:
    curves = {}
    for key in keys:
        for regime in REGIMES:
            observations = [
                Observation(c.parameters, tuple(c.seeds.values()))
                for c in cells
                if (c.task, c.metric, c.regime) == (*key, regime) and c.seeds
            ]
            if fitted := curve(observations):
                curves[*key, regime] = fitted
    return curves


def check(
    results: Results,
    metrics: Sequence[str],
    extrapolate: Sequence[float],
    beyond_a_decade: bool,
    x: SizeAxis | None = None,
) -> None:
    """UserError for a metric without a value, a size at which curves may not be read, or a run without the measure x;
    see analyse."""
    for run in results.runs:
        if x is not None and not run.measure(x):
            hint = "evaluate the run again with its training data at hand; score tables have none"
            raise UserError(f"{SIZE_AXES[x]} of {run.name} are unknown", run.source, hint)
    cells = cells_of(results.scores, results.tasks)
    shown = _shown(metrics, cells, results.tasks)
    for size in extrapolate:
        if not (math.isfinite(size) and size > 0):
            raise UserError(f"{size:g} is not a number of parameters", "--extrapolate")
    for key, regime in itertools.product(shown, REGIMES) if not beyond_a_decade else ():
        found = [c for c in cells if (c.task, c.metric, c.regime) == (*key, regime) and c.estimate is not None]
        if len(found) >= MIN_SIZES_FOR_LINE:  # else there is no curve
            _check_reach(found, extrapolate)


def _check_reach(cells: Sequence[Cell], extrapolate: Sequence[float]) -> None:
    """UserError for a size more than a decade beyond the sizes of a curve's cells."""
    first, last = cells[0], cells[-1]
    for size in extrapolate:
        if not first.parameters / A_DECADE <= size <= last.parameters * A_DECADE:
            raise UserError(
                f"{size_name(size)} is more than a decade beyond the measured sizes of {first.task} {first.metric} "
                f"{first.regime}, {size_name(first.parameters)} to {size_name(last.parameters)}",
                "--extrapolate",
                "no data show which shape holds that far; --beyond-a-decade reads the curves there anyway",
            )


def _shown(metrics: Sequence[str], cells: Sequence[Cell], tasks: Tasks) -> tuple[Key, ...]:
    """The requested metrics, or else every task's headline, and its loss if measured."""
    measured = list(dict.fromkeys((c.task, c.metric) for c in cells if c.estimate is not None))
    headline = headlines(cells, tasks)
    losses = [(task, LOSS) for task in headline if (task, LOSS) in measured]
    return chosen_metrics(metrics, measured) or tuple(dict.fromkeys([*headline.items(), *losses]))
