"""The gain of sharing: together minus alone, by metric, task and size, and by kind of task (PURE)."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bigchem.sweep.analysis.size_means import Contrast, SizeMeans, Variance, of_seeds, size_means
from bigchem.sweep.scores.aggregate import Cell
from bigchem.sweep.scores.estimate import Z95, Estimate, Floats, difference, over_seeds
from bigchem.sweep.scores.records import LOSS, Scale
from bigchem.tasks import Task, Tasks

Kind = Literal["cross-domain", "single-domain"]
KINDS: tuple[Kind, ...] = ("cross-domain", "single-domain")
Of = Literal["headline", "loss"]


@dataclass(frozen=True)
class Gain:
    """together minus alone at one size, signed so that positive means sharing helps.

    points: one per seed if both regimes have the same seeds, otherwise the single difference of means. seeds: of the
    points; empty for means. paired: how many points compare predictions of the same examples. training: see SizeMeans.
    examples: variance over test examples, as far as the scatter of the seeds does not show it; None: unknown. draws:
    the gain over resamples of the test examples [B], which all sizes share; None if some predictions are missing.
    """

    task: str
    metric: str
    parameters: int
    scale: Scale
    estimate: Estimate
    points: tuple[Estimate, ...]
    seeds: tuple[int, ...] = ()
    paired: int = 0
    training: tuple[Variance, ...] = ()
    examples: float | None = None
    draws: Floats | None = field(default=None, compare=False)

    @property
    def p(self) -> float | None:
        """Two-sided, of no gain; None if the noise of training is unknown."""
        return _contrast(self.estimate.value, self.training, self.examples).p


@dataclass(frozen=True)
class Pool:
    """The mean gain of the tasks of one kind, each task counting once, at the sizes that all of them have.

    of: "headline" (metrics with bounds) or "loss" (nats per token). gains: by size. means: the same with their noise;
    None for fewer than two sizes.
    """

    kind: Kind
    of: Of
    tasks: tuple[str, ...]
    gains: dict[int, Estimate]
    means: SizeMeans | None

    @property
    def slope(self) -> Estimate | None:
        """Of the gain against log10(parameters); with two sizes their difference over their distance."""
        return None if self.means is None else slope_of(self.means)


def slope_of(means: SizeMeans) -> Estimate | None:
    """Per decade of parameters; None where nothing is known of its noise."""
    found = means.slope()
    return None if found is None or found.p is None else found.estimate


def kind_of(task: Task) -> Kind:
    """Whether a task translates between chemistry and something else."""
    return "cross-domain" if task.cross_domain else "single-domain"


def gains_of(cells: Iterable[Cell]) -> tuple[Gain, ...]:
    """The gain of every metric at every size with both regimes."""
    known = {(c.task, c.metric, c.parameters, c.regime): c for c in cells if c.estimate is not None}
    found = []
    for (task, metric, parameters, regime), together in known.items():
        alone = known.get((task, metric, parameters, "alone"))
        if regime == "together" and alone is not None:
            found.append(gain_between(together, alone))
    return tuple(found)


def gain_between(together: Cell, alone: Cell) -> Gain:
    """The first cell minus the second, of one task, metric and size. Both have values."""
    sign = 1 if together.scale.higher_is_better else -1
    both, sides = together.seeds.keys() & alone.seeds.keys(), (together, alone)
    same = together.seeds.keys() == alone.seeds.keys()
    seeds = tuple(together.seeds) if same else ()
    paired = {seed: sign * (together.draws[seed] - alone.draws[seed]) for seed in both if _resampled(sides, seed)}
    draws = None
    if all(side.draws.keys() == side.seeds.keys() for side in sides):
        means = [np.mean(list(side.draws.values()), axis=0) for side in sides]
        draws = sign * (means[0] - means[1])
    if same:
        points = tuple(_point(together.seeds[s], alone.seeds[s], sign, paired.get(s)) for s in seeds)
        training = of_seeds([point.value for point in points])
    else:
        joint, single = (over_seeds(list(side.seeds.values())) for side in sides)
        points = (_point(joint, single, sign, draws),)
        training = _of_both(sides)
    every = same and len(paired) == len(seeds) > 1 and not any(np.isnan(found).any() for found in paired.values())
    examples = _common(list(paired.values())) if every else _examples(draws, sides)
    value = float(np.mean([point.value for point in points]))
    estimate = _estimate(value, training, examples) if training else points[0]
    task, metric, parameters = together.task, together.metric, together.parameters
    count = len(paired) if same else 0
    return Gain(task, metric, parameters, together.scale, estimate, points, seeds, count, training, examples, draws)


def _of_both(sides: Sequence[Cell]) -> tuple[Variance, ...]:
    """The training noise of both sides' means; none if one has a single seed: the other's says nothing of it."""
    found = [of_seeds([seed.value for seed in side.seeds.values()]) for side in sides]
    return tuple(variance for side in found for variance in side) if all(found) else ()


def _resampled(sides: Sequence[Cell], seed: int) -> bool:
    return all(seed in side.draws for side in sides)


def _point(together: Estimate, alone: Estimate, sign: int, draws: Floats | None) -> Estimate:
    """One seed's gain, with the interval of its draws, or with both sides as independent."""
    found = difference(together, alone)
    if draws is not None and not np.isnan(draws).any():
        low, high = np.percentile(draws, [2.5, 97.5])
        return Estimate(sign * found.value, float(low), float(high))
    if sign > 0 or found.low is None or found.high is None:
        return Estimate(sign * found.value, found.low, found.high)
    return Estimate(-found.value, -found.high, -found.low)


def _common(draws: Sequence[Floats]) -> float:
    """The variance over test examples that the seeds' gains [B] share: their mean covariance. What is a seed's own is
    part of the scatter of the seeds already."""
    of_sum, own = np.var(np.sum(draws, axis=0), ddof=1), sum(np.var(found, ddof=1) for found in draws)
    return max(0.0, float(of_sum - own) / (len(draws) * (len(draws) - 1)))


def _examples(draws: Floats | None, sides: Sequence[Cell]) -> float | None:
    """The variance over test examples: of the draws; else of both sides as independent, each seed's averaged but not
    shrunk, because all seeds are judged on the same examples."""
    if draws is not None and not np.isnan(draws).any():
        return float(np.var(draws, ddof=1))
    total = 0.0
    for side in sides:
        margins = [e.margins for e in side.seeds.values()]
        if any(m is None for m in margins):
            return None
        total += (float(np.mean([max(m) for m in margins if m is not None])) / Z95) ** 2
    return total


def _estimate(value: float, training: Sequence[Variance], examples: float | None) -> Estimate:
    return _contrast(value, training, examples).estimate


def _contrast(value: float, training: Sequence[Variance], examples: float | None) -> Contrast:
    noise = None if examples is None else np.array([[examples]])
    return SizeMeans(np.ones(1), np.array([value]), (tuple(training),), noise).contrast([1.0])


def means_of(gains: Sequence[Gain]) -> SizeMeans | None:
    """One metric's gains by size, with their noise; None for fewer than two sizes."""
    if len(gains) < 2:
        return None
    ordered = sorted(gains, key=lambda gain: gain.parameters)
    return size_means(
        {g.parameters: g.estimate.value for g in ordered},
        {g.parameters: g.training for g in ordered},
        _covariance(ordered),
    )


def _covariance(gains: Sequence[Gain]) -> Floats | None:
    """Of the gains over test examples [k, k]: of their draws; sizes without draws are independent of the others."""
    if any(g.examples is None for g in gains):
        return None
    found = np.diag([g.examples or 0.0 for g in gains])
    drawn = [i for i, g in enumerate(gains) if g.draws is not None and not np.isnan(g.draws).any()]
    if len(drawn) > 1:
        found[np.ix_(drawn, drawn)] = np.cov([gains[i].draws for i in drawn])
        np.fill_diagonal(found, [g.examples or 0.0 for g in gains])
    return found


def pools_of(
    gains: Sequence[Gain], headline: Mapping[str, str], tasks: Tasks, constant: Container[tuple[str, str]] = ()
) -> tuple[Pool, ...]:
    """The pools of both kinds, over headline metrics and over losses; a kind without tasks has none.

    Excluded: a headline metric without bounds (an edit distance, an error), whose unit differs from the others', and a
    constant one. Their tasks' losses are pooled nevertheless.
    """
    pools = []
    for of in ("headline", "loss"):
        for kind in KINDS:
            by_task = {
                task: {
                    g.parameters: g
                    for g in gains
                    if (g.task, g.metric) == (task, metric) and (of == "loss" or g.scale.bounded)
                    if (task, metric) not in constant
                }
                for task, metric in (headline.items() if of == "headline" else ((task, LOSS) for task in headline))
                if kind_of(tasks[task]) == kind
            }
            members = {task: found for task, found in by_task.items() if found}
            if members:
                pools.append(_pool(kind, "loss" if of == "loss" else "headline", members))
    return tuple(pools)


def _pool(kind: Kind, of: Of, members: Mapping[str, Mapping[int, Gain]]) -> Pool:
    shared = sorted(set.intersection(*(set(found) for found in members.values())))
    groups = {size: [found[size] for found in members.values()] for size in shared}
    values = {size: float(np.mean([gain.estimate.value for gain in group])) for size, group in groups.items()}
    training = {size: _pooled_training(group) for size, group in groups.items()}
    covariances = [_covariance([found[size] for size in shared]) for found in members.values()]
    examples = None
    if all(c is not None for c in covariances):  # each task has test examples of its own
        examples = np.sum([c for c in covariances if c is not None], axis=0) / len(covariances) ** 2
    gains = {
        size: _estimate(value, training[size], None if examples is None else float(examples[i, i]))
        for i, (size, value) in enumerate(values.items())
    }
    means = size_means(values, training, examples) if len(shared) > 1 else None
    return Pool(kind, of, tuple(members), gains, means)


def _pooled_training(group: Sequence[Gain]) -> tuple[Variance, ...]:
    """Of the mean over tasks. The tasks of one shared model are not independent, so they are averaged seed by seed
    where all have the same seeds."""
    if len({gain.seeds for gain in group}) == 1 and group[0].seeds:
        return of_seeds([float(np.mean([gain.points[i].value for gain in group])) for i in range(len(group[0].points))])
    return tuple(Variance(v.value / len(group) ** 2, v.dof) for gain in group for v in gain.training)


def contrast(pools: Sequence[Pool], of: Of = "headline") -> Estimate | None:
    """By how much the slope of cross-domain tasks exceeds that of single-domain tasks; None without both.

    The two are treated as independent, so the interval is too wide: both share the luck of one mixed model.
    """
    found = {pool.kind: pool.means.slope() for pool in pools if pool.of == of and pool.means is not None}
    cross, single = (found.get(kind) for kind in KINDS)
    if cross is None or single is None or cross.p is None or single.p is None:
        return None
    return cross.minus(single).estimate
