"""Sentences on pools, tasks, and what limits them; the first ones are claim.py's (PURE)."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence

from bigchem.evaluate.protocol.names import with_unit, written
from bigchem.sweep.analysis.claim import joined, name_of
from bigchem.sweep.analysis.diverged import Diverged
from bigchem.sweep.analysis.fits.curves import Curve
from bigchem.sweep.analysis.gains import Gain, Pool, kind_of
from bigchem.sweep.analysis.power import MOST_SEEDS, seeds_to_find
from bigchem.sweep.analysis.size_means import SizeMeans
from bigchem.sweep.analysis.trends import Trend, Verdict
from bigchem.sweep.scores.aggregate import Cell, Key, size_name
from bigchem.sweep.scores.estimate import MIN_SIZES_FOR_LINE, Estimate
from bigchem.sweep.scores.records import LOSS, REGIMES, Regime, Results, Scale
from bigchem.tasks import Task, Tasks


def unpooled_headlines(gains: Sequence[Gain], headline: Mapping[str, str]) -> tuple[Key, ...]:
    """The headline metrics with a gain that no pool includes, because they have no bounds."""
    keys = dict.fromkeys((g.task, g.metric) for g in gains if not g.scale.bounded)
    return tuple((task, metric) for task, metric in keys if headline.get(task) == metric)


def unpooled_note(unpooled: Sequence[Key]) -> tuple[str, ...]:
    """The caution about them."""
    return (f"Not in the pooled gain of headline metrics: {_scales(unpooled)}.",) if unpooled else ()


def _scales(unpooled: Sequence[Key]) -> str:
    names = joined(list(map(name_of, unpooled)))
    return f"{names} {'has a scale of its own' if len(unpooled) == 1 else 'have scales of their own'}"


def pool_sentences(pools: Sequence[Pool]) -> tuple[str, ...]:
    """For each kind with several tasks: the mean gain at the largest size they share, and its slope."""
    return tuple(_pool_sentence(p) for p in pools if p.gains and p.of == "headline" and len(p.tasks) > 1)


def _pool_sentence(pool: Pool) -> str:
    size = max(pool.gains)
    tasks = f"{pool.kind} tasks ({joined(pool.tasks)}), mean of headline metrics"
    text = f"{tasks}: gain {signed(pool.gains[size])} at {size_name(size)}"
    if pool.means is None or pool.slope is None:
        return f"{text}; too few sizes or seeds trained both ways for a slope."
    text = f"{text}; slope {signed(pool.slope)} per decade of parameters over {len(pool.means.sizes)} sizes"
    return f"{text}{_too_few(pool.means) if not pool.slope.sign else ''}."


def _too_few(means: SizeMeans) -> str:
    """What such a sweep can find, for a slope that it did not."""
    slope = means.slope()
    if slope is None or not any(means.training):
        return ""
    seeds = seeds_to_find(means, slope.value)
    needed = f"over {MOST_SEEDS} seeds or more test examples" if seeds is None else f"{seeds} seeds"
    found = f"such a sweep detects a slope of {slope.detectable():.2g} with 80 % power"
    return f"; {found}, and one as small as this would take {needed}"


def sentences(
    headline: Mapping[str, str],
    gains: Sequence[Gain],
    trends: Mapping[Key, Trend],
    tasks: Tasks,
    constant: Collection[Key] = (),
) -> tuple[str, ...]:
    """One sentence on all tasks, then one per task; none if no task was trained both ways. constant: headline metrics
    that can show no gain: the losses of their tasks stand in."""
    losses = {(g.task, g.parameters): g for g in gains if g.metric == LOSS}
    with_loss = {task for task, _ in losses}
    blind = [task for task, metric in headline.items() if (task, metric) in constant and task in with_loss]
    headline = {**headline, **dict.fromkeys(blind, LOSS)}
    largest = {g.task: g for g in sorted(gains, key=lambda g: g.parameters) if headline.get(g.task) == g.metric}
    if not largest:
        return ()
    sizes = {g.parameters for g in largest.values()}
    place = size_name(*sizes) if len(sizes) == 1 else "the largest size at which each task was trained both ways"
    effect = ("helps {}", "hurts {}", "shows no clear effect on {}", "cannot be judged for {} (no interval)")
    first = f"At {place}, sharing {_verdicts({task: gain.estimate for task, gain in largest.items()}, effect)}"
    if blind:
        first += f" (judged by loss, as the headline metric is the same in every run: {joined(blind)})"
    growth = {task: trends[task, metric] for task, metric in headline.items() if (task, metric) in trends}
    decided = {task: trend for task, trend in growth.items() if trend.p is not None}
    if decided:
        second = f"Judged alone, {'; '.join(_by_verdict(decided))}."
    else:
        second = "How its gain grows cannot be said: too few sizes or seeds were trained both ways."
    each = (
        _task_sentence(tasks[task], gain, trends.get((task, gain.metric)), losses.get((task, gain.parameters)))
        for task, gain in largest.items()
    )
    return (f"{first}. {second}", *each)


GROWTH: dict[Verdict, str] = {
    "gain grows": "the gain grows with size",
    "cost shrinks": "the cost of sharing shrinks with size",
    "rises": "the gain rises with size",
    "gain shrinks": "the gain shrinks with size",
    "cost grows": "the cost of sharing grows with size",
    "falls": "the gain falls with size",
    "peaks": "no line fits the gain, whose extreme is at a middle size",
    "one scale": "whether it grows with size depends on the scale",
    "undecided": "whether it grows with size is open",
}
"""Of one metric, without a correction for the others."""


def _by_verdict(trends: Mapping[str, Trend]) -> list[str]:
    """One clause for each verdict that some tasks have."""
    return [
        f"{text} for {joined(named)}"
        for verdict, text in GROWTH.items()
        if (named := [task for task, trend in trends.items() if trend.uncorrected == verdict])
    ]


def _verdicts(estimates: dict[str, Estimate], phrases: tuple[str, ...]) -> str:
    """Groups tasks by whether their interval lies above, below or across zero, or is missing; one phrase per group that
    has tasks."""
    groups = ([task for task, e in estimates.items() if _verdict(e) == index] for index in range(len(phrases)))
    return "; ".join(phrase.format(joined(tasks)) for phrase, tasks in zip(phrases, groups, strict=True) if tasks)


def _verdict(estimate: Estimate) -> int:
    """0: above zero, 1: below, 2: not distinguishable from zero, 3: no interval."""
    return 3 if estimate.margins is None else (2, 0, 1)[estimate.sign]


def _compared(gains: Sequence[Gain]) -> str:
    points = sum(len(gain.points) for gain in gains)
    paired = sum(gain.paired for gain in gains)
    if not paired:
        return "Together and alone are compared as independent: intervals are too wide where test examples are shared."
    return (
        f"{paired} of {points} differences are by paired bootstrap over the same test examples; the others take both "
        "sides as independent, so that their intervals are too wide rather than too narrow."
    )


def _task_sentence(task: Task, gain: Gain, trend: Trend | None, loss: Gain | None) -> str:
    verdicts = ("sharing helps", "sharing hurts", "no clear effect of sharing", "sharing cannot be judged")
    verdict = verdicts[_verdict(gain.estimate)]
    place = f"{gain.task} ({kind_of(task)}): {verdict} at {size_name(gain.parameters)}"
    text = f"{place}, gain {signed(gain.estimate)} {with_unit(gain.metric)}"
    if loss is not None and loss is not gain:
        text += f", {signed(loss.estimate)} {with_unit(LOSS)}"
    if trend is None or trend.p is None:
        return f"{text}; too few sizes or seeds trained both ways for a slope."
    slope = signed(trend.per_decade)
    return f"{text}; {GROWTH[trend.uncorrected]}, {slope} per decade of parameters over {trend.sizes} sizes."


def signed(estimate: Estimate) -> str:
    """+0.031 [+0.010, +0.052], with enough decimals for two significant digits of the half-width."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3g} (no interval)".replace("-", "−")
    half = (estimate.high - estimate.low) / 2
    places = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 4
    value, low, high = (f"{number:+.{min(places, 6)}f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]".replace("-", "−")


def constant_note(constant: Mapping[Key, float]) -> tuple[str, ...]:
    """Names metrics that can show no gain."""
    if not constant:
        return ()
    named = joined([f"{name_of(key)} ({value:g})" for key, value in constant.items()])
    return (f"Neither counted nor pooled, because every run has the same lowest or highest value: {named}.",)


def diverged_note(found: Sequence[Diverged], *, kept: bool) -> tuple[str, ...]:
    """Names the runs that diverged. kept: they are in the analysis nevertheless."""
    if not found:
        return ()
    runs = joined(
        [
            f"{one.run.name} ({size_name(one.run.parameters)}, seed {one.run.seed}: {name_of((one.task, one.metric))} "
            f"{one.value:.3g} where its other seeds have {one.others:.3g})"
            for one in found
        ]
    )
    return (f"{'Including' if kept else 'Without'} {runs}, which diverged.",)


def cautions(cells: Sequence[Cell], gains: Sequence[Gain], headline: dict[str, str], results: Results) -> list[str]:
    """What limits the conclusions."""
    notes = ["Intervals are 95 %, each for a single number: expect one in twenty to miss by chance."]
    sizes = sorted({c.parameters for c in cells})
    if len(sizes) < MIN_SIZES_FOR_LINE:
        names = " and ".join(map(size_name, sizes))
        notes.append(f"Only {len(sizes)} size{'s' * (len(sizes) != 1)} ({names}): too few for any fit; none is drawn.")
    elif len(sizes) == MIN_SIZES_FOR_LINE:
        notes.append("Three sizes are too few for a curve: only lines are fitted.")
    notes += _one_seed([c for c in cells if c.seeds])
    if gains:
        notes.append(_compared(gains))
    measured = {(c.task, c.regime, c.parameters) for c in cells if headline.get(c.task) == c.metric and c.estimate}
    missing = []
    for task, regime in itertools.product(headline, REGIMES):
        absent = [size_name(size) for size in sizes if (task, regime, size) not in measured]
        if absent:
            missing.append(f"{task} {regime} at {joined(absent) if len(absent) < len(sizes) else 'every size'}")
    if missing:
        notes.append(f"Not measured, so left blank: {'; '.join(missing)}.")
    for task, metric in headline.items():
        if metric != (usual := results.tasks[task].headline):
            notes.append(f"{task}: {written(usual)} is not available; {written(metric)} is used instead.")
    return notes


def impossible_values(
    curves: Mapping[tuple[str, str, Regime], Curve],
    scales: Mapping[Key, Scale],
    shown: Sequence[Key],
    sizes: Sequence[float],
) -> list[str]:
    """Where curves, read at these sizes, leave their metric's range, as below 0, or above 1 for shares."""
    notes = []
    for (task, metric, regime), curve in curves.items():
        scale = scales[task, metric]
        for size in sizes if (task, metric) in shown else ():
            value = float(curve(size))
            if not scale.lowest <= value <= scale.highest:
                text = f"{value:.3g}".replace("-", "−")
                notes.append(
                    f"{name_of((task, metric))} {regime} read at {size_name(size)} is {text}, which is impossible: the "
                    f"{curve.shape} shape does not hold that far."
                )
    return notes


def _one_seed(cells: Sequence[Cell]) -> list[str]:
    """Where intervals exclude training noise: at a size, for tasks at a size, or for metrics of a task, as where the
    other seeds predicted too little to score."""
    if all(len(cell.seeds) == 1 for cell in cells):
        return ["One seed everywhere: no interval includes training noise."]
    places = []
    for size in sorted({cell.parameters for cell in cells if len(cell.seeds) == 1}):
        at = [cell for cell in cells if cell.parameters == size]
        whole = all(len(cell.seeds) == 1 for cell in at)
        places.append(size_name(size) if whole else f"{size_name(size)} ({'; '.join(_of_one_seed(at))})")
    return [f"One seed at {joined(places)}: intervals there include no training noise."] if places else []


def _of_one_seed(cells: Sequence[Cell]) -> list[str]:
    """`captioning together`, where every metric has one seed, else `captioning together: BLEU-4`."""
    of: dict[str, list[Cell]] = {}
    for cell in cells:
        of.setdefault(f"{cell.task} {cell.regime}", []).append(cell)
    found = []
    for name, metrics in of.items():
        single = [written(cell.metric) for cell in metrics if len(cell.seeds) == 1]
        if single:
            found.append(name if len(single) == len(metrics) else f"{name}: {joined(single)}")
    return found
