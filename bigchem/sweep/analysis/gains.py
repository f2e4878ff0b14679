"""The gain of sharing: together minus alone, by metric, task and size, and by kind of task (PURE)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bigchem.sweep.analysis.aggregate import Cell
from bigchem.sweep.analysis.fit import Estimate, Line, difference, line, over_seeds
from bigchem.sweep.analysis.records import LOSS, Scale
from bigchem.tasks import Task, Tasks

Kind = Literal["cross-domain", "single-domain"]
KINDS: tuple[Kind, ...] = ("cross-domain", "single-domain")
PairKey = tuple[str, str, int, int]
"""(task, metric, parameters, seed)."""


@dataclass(frozen=True)
class Gain:
    """together minus alone at one size, signed so that positive means sharing helps.

    points: one per seed if both regimes have the same seeds, otherwise the single difference of means. seeds: of the
    points; empty for means. paired: how many points compare predictions of the same examples.
    """

    task: str
    metric: str
    parameters: int
    scale: Scale
    estimate: Estimate
    points: tuple[Estimate, ...]
    seeds: tuple[int, ...] = ()
    paired: int = 0


@dataclass(frozen=True)
class Pool:
    """The mean gain of the tasks of one kind, each task counting once, at the sizes that all of them have.

    of: "headline" (metrics with bounds) or "loss" (nats per token). gains: by size, over seeds. trend: of the
    gains, with one point per seed where all tasks have the same seeds.
    """

    kind: Kind
    of: Literal["headline", "loss"]
    tasks: tuple[str, ...]
    gains: dict[int, Estimate]
    trend: Line | None


def kind_of(task: Task) -> Kind:
    """Whether a task translates between chemistry and something else."""
    return "cross-domain" if task.cross_domain else "single-domain"


def gains_of(cells: Iterable[Cell], paired: Mapping[PairKey, Estimate]) -> tuple[Gain, ...]:
    """The gain of every metric at every size with both regimes.

    paired: together - alone with a paired-bootstrap interval; without it, the two are treated as independent.
    """
    known = {(c.task, c.metric, c.parameters, c.regime): c for c in cells if c.estimate is not None}
    found = []
    for (task, metric, parameters, regime), together in known.items():
        alone = known.get((task, metric, parameters, "alone"))
        if regime == "together" and alone is not None:
            found.append(_gain(together, alone, paired))
    return tuple(found)


def _gain(together: Cell, alone: Cell, paired: Mapping[PairKey, Estimate]) -> Gain:
    task, metric, parameters = together.task, together.metric, together.parameters
    orient = _same if together.scale.higher_is_better else _negated
    if together.seeds.keys() != alone.seeds.keys():
        mean = orient(difference(over_seeds(list(together.seeds.values())), over_seeds(list(alone.seeds.values()))))
        return Gain(task, metric, parameters, together.scale, mean, (mean,))
    seeds = tuple(together.seeds)
    both = {seed: paired.get((task, metric, parameters, seed)) for seed in seeds}
    points = tuple(orient(found or difference(together.seeds[s], alone.seeds[s])) for s, found in both.items())
    count = sum(found is not None for found in both.values())
    return Gain(task, metric, parameters, together.scale, over_seeds(points), points, seeds, count)


def _same(estimate: Estimate) -> Estimate:
    return estimate


def _negated(estimate: Estimate) -> Estimate:
    ends = (None, None) if estimate.low is None or estimate.high is None else (-estimate.high, -estimate.low)
    return Estimate(-estimate.value, *ends)


def trend_of(gains: Sequence[Gain]) -> Line | None:
    """The line through one metric's gains against log10(parameters); None for fewer than three sizes."""
    points = [(gain.parameters, point) for gain in gains for point in gain.points]
    return line([size for size, _ in points], [point for _, point in points])


def pools_of(gains: Sequence[Gain], headline: Mapping[str, str], tasks: Tasks) -> tuple[Pool, ...]:
    """The pools of both kinds, over headline metrics and over losses; a kind without tasks has none.

    A headline metric without bounds (an edit distance, an error) is excluded: its unit differs from the others'.
    """
    pools = []
    for of in ("headline", "loss"):
        for kind in KINDS:
            by_task = {
                task: {
                    g.parameters: g
                    for g in gains
                    if (g.task, g.metric) == (task, metric) and (of == "loss" or g.scale.bounded)
                }
                for task, metric in (headline.items() if of == "headline" else ((task, LOSS) for task in headline))
                if kind_of(tasks[task]) == kind
            }
            members = {task: found for task, found in by_task.items() if found}
            if members:
                pools.append(_pool(kind, "loss" if of == "loss" else "headline", members))
    return tuple(pools)


def _pool(kind: Kind, of: Literal["headline", "loss"], members: Mapping[str, Mapping[int, Gain]]) -> Pool:
    shared = sorted(set.intersection(*(set(found) for found in members.values())))
    sizes, points, means = [], [], {}
    for size in shared:
        group = [found[size] for found in members.values()]
        if len({gain.seeds for gain in group}) == 1:
            added = [_mean([gain.points[i] for gain in group]) for i in range(len(group[0].points))]
        else:
            added = [_mean([gain.estimate for gain in group])]
        sizes += [size] * len(added)
        points += added
        means[size] = over_seeds(added)
    return Pool(kind, of, tuple(members), means, line(sizes, points))


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates on different test sets; their margins combine in quadrature."""
    value = sum(e.value for e in estimates) / len(estimates)
    margins = [e.margins for e in estimates]
    if any(m is None for m in margins):
        return Estimate(value)
    below, above = (math.hypot(*(m[side] for m in margins if m is not None)) / len(estimates) for side in (0, 1))
    return Estimate(value, value - below, value + above)


def contrast(pools: Sequence[Pool], of: Literal["headline", "loss"] = "headline") -> Estimate | None:
    """By how much the slope of cross-domain tasks exceeds that of single-domain tasks; None without both.

    The two are treated as independent, so the interval is too wide: both share the luck of one mixed model.
    """
    slopes = {pool.kind: pool.trend.slope for pool in pools if pool.of == of and pool.trend is not None}
    return difference(slopes["cross-domain"], slopes["single-domain"]) if len(slopes) == len(KINDS) else None
