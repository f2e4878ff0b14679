"""A table of scores -> cells, gains of sharing, slopes, curves, and sentences that say what they support (PURE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bigchem.errors import UserError
from bigchem.sweep.cells import Cell, Key, cells_of, chosen_metrics, headlines, size_name
from bigchem.sweep.curves import Curve, Observation, curve
from bigchem.sweep.fit import Estimate, Line
from bigchem.sweep.gains import Gain, PairKey, Pool, gains_of, pools_of, trend_of
from bigchem.sweep.records import LOSS, REGIMES, Regime, Results
from bigchem.sweep.words import cautions, claim, pool_sentences, sentences

A_DECADE = 10.0
"""How far beyond the measured sizes a curve may be read without being asked twice."""


@dataclass(frozen=True)
class Analysis:
    """Everything that the report shows. Cells and gains that do not exist are not there.

    claim: what the data support of the benefit of sharing growing with size. headline: the metric that stands for each
    task. shown: what is drawn. trends: gain against size, per key. pools: gains by kind of task. curves: metric against
    size, per key and regime. beyond: sizes that the curves are read at as well.
    """

    results: Results
    cells: tuple[Cell, ...]
    gains: tuple[Gain, ...]
    trends: dict[Key, Line]
    pools: tuple[Pool, ...]
    curves: dict[tuple[str, str, Regime], Curve]
    headline: dict[str, str]
    shown: tuple[Key, ...]
    claim: str
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    beyond: tuple[float, ...] = ()

    def cells_of(self, key: Key, regime: Regime) -> list[Cell]:
        """The cells of a metric that have a value, by size."""
        return [c for c in self.cells if (c.task, c.metric) == key and c.regime == regime and c.estimate is not None]

    def gains_of(self, key: Key) -> list[Gain]:
        """The gains of a metric, by size."""
        return [g for g in self.gains if (g.task, g.metric) == key]

    @property
    def sizes(self) -> list[int]:
        """Distinct numbers of parameters, ascending."""
        return sorted({cell.parameters for cell in self.cells})


def analyse(
    results: Results,
    metrics: Sequence[str] = (),
    *,
    paired: Mapping[PairKey, Estimate] | None = None,
    extrapolate: Sequence[float] = (),
    beyond_a_decade: bool = False,
) -> Analysis:
    """metrics: "TASK:METRIC" to draw instead of each task's headline and loss. paired: see gains_of.

    extrapolate: further sizes to read the curves at; UserError beyond a decade of those measured, unless allowed.
    """
    check(results, metrics, extrapolate, beyond_a_decade)
    cells = cells_of(results.scores)
    gains = gains_of(cells, paired or {})
    headline = headlines(cells)
    keys = list(dict.fromkeys((c.task, c.metric) for c in cells))
    trends = {key: found for key in keys if (found := trend_of([g for g in gains if (g.task, g.metric) == key]))}
    measured = _measured(results)
    shown = chosen_metrics(metrics, measured) if metrics else _default_shown(headline, measured)
    notes = (*cautions(cells, gains, headline, results), *results.notes)
    if metrics:  # what was asked for stands for its task, in words too
        headline = {**headline, **{task: metric for task, metric in reversed(shown) if metric != LOSS}}
    pools = pools_of(gains, headline)
    overall, *tasks = sentences(headline, gains, trends) or (None,)
    said = tuple(filter(None, (overall, *pool_sentences(pools), *tasks)))
    curves = _curves(cells, keys)
    beyond = tuple(sorted(set(extrapolate)))
    return Analysis(results, cells, gains, trends, pools, curves, headline, shown, claim(pools), said, notes, beyond)


def _curves(cells: Sequence[Cell], keys: Sequence[Key]) -> dict[tuple[str, str, Regime], Curve]:
    curves = {}
    for key in keys:
        for regime in REGIMES:
            seen = [
                Observation(c.parameters, tuple(c.seeds.values()))
                for c in cells
                if (c.task, c.metric, c.regime) == (*key, regime) and c.seeds
            ]
            if fitted := curve(seen):
                curves[*key, regime] = fitted
    return curves


def check(results: Results, metrics: Sequence[str], extrapolate: Sequence[float], beyond_a_decade: bool) -> None:
    """UserError for a metric without a value, and for a size that curves may not be read at; see analyse."""
    chosen_metrics(metrics, _measured(results))
    sizes = [run.parameters for run in results.runs]
    for size in extrapolate:
        if size <= 0:
            raise UserError(f"{size:g} is no number of parameters", "--extrapolate")
        if not beyond_a_decade and not min(sizes) / A_DECADE <= size <= max(sizes) * A_DECADE:
            raise UserError(
                f"{size_name(size)} is more than a decade beyond the measured sizes, "
                f"{size_name(min(sizes))} to {size_name(max(sizes))}",
                "--extrapolate",
                "no data here tell which shape goes on so far; --beyond-a-decade reads the curves there all the same",
            )


def _measured(results: Results) -> list[Key]:
    """All that has a value, in the order of the cells."""
    return list(dict.fromkeys((c.task, c.metric) for c in cells_of(results.scores) if c.estimate is not None))


def _default_shown(headline: dict[str, str], keys: Sequence[Key]) -> tuple[Key, ...]:
    losses = [(task, LOSS) for task in headline if (task, LOSS) in keys]
    return tuple(dict.fromkeys([*headline.items(), *losses]))
