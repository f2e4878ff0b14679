"""A table of scores -> cells, gains of sharing, slopes, curves, and sentences that say what they support."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bigchem.errors import UserError
from bigchem.sweep.fit import MIN_SIZES_FOR_LINE, Curve, Estimate, Line, curve, difference, line, over_seeds
from bigchem.sweep.results import LOSS, REGIMES, Regime, Results, Score, higher_is_better
from bigchem.tasks import TASK_NAMES, TASKS

Key = tuple[str, str]
"""(task, metric)."""


@dataclass(frozen=True)
class Cell:
    """One metric of one task at one size in one regime. estimate is None where it is n/a; note says why."""

    task: str
    metric: str
    regime: Regime
    parameters: int
    seeds: dict[int, Estimate]
    estimate: Estimate | None
    note: str = ""


@dataclass(frozen=True)
class Gain:
    """together minus alone at one size, turned so that positive means: sharing helps.

    points: one for each seed where both regimes have the same seeds, otherwise the one difference of means.
    """

    task: str
    metric: str
    parameters: int
    estimate: Estimate
    points: tuple[Estimate, ...]


@dataclass(frozen=True)
class Analysis:
    """Everything that the report shows. Cells and gains that do not exist are not there.

    headline: the metric that stands for each task. shown: what is drawn. trends: gain against size, per key.
    curves: metric against size, per key and regime.
    """

    results: Results
    cells: tuple[Cell, ...]
    gains: tuple[Gain, ...]
    trends: dict[Key, Line]
    curves: dict[tuple[str, str, Regime], Curve]
    headline: dict[str, str]
    shown: tuple[Key, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]

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


def analyse(results: Results, metrics: Sequence[str] = ()) -> Analysis:
    """metrics: "TASK:METRIC" to draw instead of each task's headline and loss."""
    cells = _cells(results.scores)
    gains = _gains(cells)
    headline = headlines(cells)
    keys = list(dict.fromkeys((c.task, c.metric) for c in cells))
    trends, curves = {}, {}
    for key in keys:
        points = [(g.parameters, p) for g in gains if (g.task, g.metric) == key for p in g.points]
        if trend := line([size for size, _ in points], [point for _, point in points]):
            trends[key] = trend
        for regime in REGIMES:
            drawn = [
                (c.parameters, c.estimate.value)
                for c in cells
                if (c.task, c.metric, c.regime) == (*key, regime) and c.estimate is not None
            ]
            if fitted := curve([size for size, _ in drawn], [value for _, value in drawn]):
                curves[*key, regime] = fitted
    measured = list(dict.fromkeys((c.task, c.metric) for c in cells if c.estimate is not None))
    shown = chosen_metrics(metrics, measured) if metrics else _default_shown(headline, measured)
    notes = (*_cautions(cells, headline, results), *results.notes)
    if metrics:  # what was asked for stands for its task, in words too
        headline = {**headline, **{task: metric for task, metric in reversed(shown) if metric != LOSS}}
    sentences = _sentences(headline, gains, trends)
    return Analysis(results, cells, gains, trends, curves, headline, shown, sentences, notes)


def size_name(parameters: float) -> str:
    """0.2M, 1M, 5.2M, 248M, 1.2B: for reading; the exact number stands in the tables of runs."""
    unit, name = (1e9, "B") if parameters >= 9.995e8 else (1e6, "M") if parameters >= 1e5 else (1e3, "k")
    scaled = parameters / unit
    return f"{scaled:.{3 if scaled >= 99.5 else 2}g}{name}"


def _cells(scores: Sequence[Score]) -> tuple[Cell, ...]:
    grouped: dict[tuple[str, str, Regime, int], list[Score]] = {}
    for score in scores:
        grouped.setdefault((score.task, score.metric, score.run.regime, score.run.parameters), []).append(score)
    keys = list(dict.fromkeys((score.task, score.metric) for score in scores))
    order = sorted(grouped, key=lambda k: (TASK_NAMES.index(k[0]), keys.index(k[:2]), REGIMES.index(k[2]), k[3]))
    cells = []
    for key in order:
        group = grouped[key]
        by_seed: dict[int, list[Estimate]] = {}
        for score in group:
            if score.estimate is not None:
                by_seed.setdefault(score.run.seed, []).append(score.estimate)
        # More than one estimate a seed only where mixing was asked for.
        seeds = {seed: over_seeds(found) for seed, found in sorted(by_seed.items())}
        mean = over_seeds(list(seeds.values())) if seeds else None
        cells.append(Cell(*key, seeds, mean, next((s.note for s in group if s.note), "")))
    return tuple(cells)


def _gains(cells: Iterable[Cell]) -> tuple[Gain, ...]:
    known = {(c.task, c.metric, c.parameters, c.regime): c for c in cells if c.estimate is not None}
    gains = []
    for (task, metric, parameters, regime), together in known.items():
        alone = known.get((task, metric, parameters, "alone"))
        if regime != "together" or alone is None:
            continue
        better, worse = (together, alone) if higher_is_better(metric) else (alone, together)
        if better.seeds.keys() == worse.seeds.keys():
            points = tuple(difference(better.seeds[seed], worse.seeds[seed]) for seed in better.seeds)
        else:
            points = (difference(_value(better), _value(worse)),)
        gains.append(Gain(task, metric, parameters, over_seeds(points), points))
    return tuple(gains)


def _value(cell: Cell) -> Estimate:
    if cell.estimate is None:
        raise ValueError("a cell without a value")
    return cell.estimate


def headlines(cells: Sequence[Cell] | Sequence[Score]) -> dict[str, str]:
    """Each task's headline metric; where that is n/a, a variant of it (bleu4 -> bleu4_words), then any with a value."""
    found: dict[str, str] = {}
    for name, task in TASKS.items():
        known = list(dict.fromkeys(c.metric for c in cells if c.task == name and c.estimate is not None))
        ranked = sorted(known, key=lambda m: (m != task.headline, not m.startswith(task.headline), m == LOSS))
        if ranked:
            found[name] = ranked[0]
    return found


def chosen_metrics(metrics: Sequence[str], keys: Sequence[Key]) -> tuple[Key, ...]:
    """Metrics by their TASK:METRIC; UserError for one that is not among the keys."""
    chosen = []
    for text in metrics:
        task, _, metric = text.partition(":")
        if (task, metric) not in keys:
            known = ", ".join(f"{t}:{m}" for t, m in keys)
            raise UserError(f"no results for '{text}'", "--metric", f"write TASK:METRIC, one of {known}")
        chosen.append((task, metric))
    return tuple(dict.fromkeys(chosen))


def _default_shown(headline: dict[str, str], keys: Sequence[Key]) -> tuple[Key, ...]:
    losses = [(task, LOSS) for task in headline if (task, LOSS) in keys]
    return tuple(dict.fromkeys([*headline.items(), *losses]))


def _sentences(headline: dict[str, str], gains: Sequence[Gain], trends: dict[Key, Line]) -> tuple[str, ...]:
    """What the data support: first in one sentence, then by task."""
    largest = {g.task: g for g in sorted(gains, key=lambda g: g.parameters) if headline.get(g.task) == g.metric}
    if not largest:
        return ("No task was trained both together and alone at one size: nothing can be said about sharing.",)
    sizes = {g.parameters for g in largest.values()}
    place = size_name(*sizes) if len(sizes) == 1 else "the largest size that each task has both ways"
    effect = ("helps {}", "hurts {}", "shows no clear effect on {}", "is without an interval to judge it by for {}")
    first = f"At {place}, sharing {_verdicts({task: gain.estimate for task, gain in largest.items()}, effect)}"
    slopes = {task: trends[task, metric].slope for task, metric in headline.items() if (task, metric) in trends}
    if slopes:
        growth = ("grows with size for {}", "shrinks with size for {}", "shows no clear trend with size for {}")
        second = f"Its gain {_verdicts(slopes, growth)}."
    else:
        second = f"Fewer than {MIN_SIZES_FOR_LINE} sizes were trained both ways: how its gain grows cannot be said."
    each = (_task_sentence(gain, trends.get((task, gain.metric))) for task, gain in largest.items())
    return (f"{first}. {second}", *each)


def _verdicts(estimates: dict[str, Estimate], phrases: tuple[str, ...]) -> str:
    """The tasks whose interval lies above, below or across zero, or that have none, each group in its phrase; empty
    groups unsaid."""
    groups = ([task for task, e in estimates.items() if _verdict(e) == index] for index in range(len(phrases)))
    return "; ".join(phrase.format(_joined(tasks)) for phrase, tasks in zip(phrases, groups, strict=True) if tasks)


def _verdict(estimate: Estimate) -> int:
    """0: above zero, 1: below, 2: not told from zero, 3: no interval."""
    return 3 if estimate.margins is None else (2, 0, 1)[estimate.sign]


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _task_sentence(gain: Gain, trend: Line | None) -> str:
    kind = "cross-domain" if TASKS[gain.task].cross_domain else "single-domain"
    verdicts = ("sharing helps", "sharing hurts", "no clear effect of sharing", "not to be judged without an interval")
    verdict = verdicts[_verdict(gain.estimate)]
    text = (
        f"{gain.task} ({kind}): {verdict} at {size_name(gain.parameters)}, gain {signed(gain.estimate)} {gain.metric}"
    )
    if trend is None:
        return f"{text}; too few sizes trained both ways for a slope."
    growth = {1: "the gain grows with size", -1: "the gain shrinks with size", 0: "its growth with size is open"}
    return (
        f"{text}; {growth[trend.slope.sign]}, {signed(trend.slope)} per decade of parameters over {trend.sizes} sizes."
    )


def signed(estimate: Estimate) -> str:
    """+0.031 [+0.010, +0.052]."""
    text = f"{estimate.value:+.3g}"
    if estimate.low is None or estimate.high is None:
        return f"{text} (no interval)"
    return f"{text} [{estimate.low:+.3g}, {estimate.high:+.3g}]"


def _cautions(cells: Sequence[Cell], headline: dict[str, str], results: Results) -> list[str]:
    """What limits the conclusions, in sentences."""
    notes = ["Intervals are 95 %, each for one number alone: of twenty, one misses by chance."]
    sizes = sorted({c.parameters for c in cells})
    if len(sizes) < MIN_SIZES_FOR_LINE:
        there = " and ".join(map(size_name, sizes))
        notes.append(f"Only {len(sizes)} size{'s' * (len(sizes) != 1)} ({there}): too few for any fit; none is drawn.")
    elif len(sizes) == MIN_SIZES_FOR_LINE:
        notes.append(
            "Three sizes leave one degree of freedom: slopes are uncertain, and curves other than a line untried."
        )
    if all(len(c.seeds) <= 1 for c in cells):
        notes.append("One seed everywhere: no interval holds the noise of training.")
    there_is = {(c.task, c.regime, c.parameters) for c in cells if headline.get(c.task) == c.metric and c.estimate}
    missing = []
    for task, regime in itertools.product(headline, REGIMES):
        absent = [size_name(size) for size in sizes if (task, regime, size) not in there_is]
        if absent:
            missing.append(f"{task} {regime} at {_joined(absent) if len(absent) < len(sizes) else 'every size'}")
    if missing:
        notes.append(f"Not measured, and left open: {'; '.join(missing)}.")
    for task, metric in headline.items():
        if metric != TASKS[task].headline:
            notes.append(f"{task}: {TASKS[task].headline} is not available; {metric} stands for it.")
    tokens = {r: {run.tokens for run in results.runs if run.regime == r and run.tokens} for r in REGIMES}
    if all(tokens.values()) and tokens["together"] != tokens["alone"]:
        spans = {r: " to ".join(f"{t:,}" for t in dict.fromkeys((min(tokens[r]), max(tokens[r])))) for r in REGIMES}
        notes.append(
            f"Trained tokens of a run: together {spans['together']} over all its tasks; alone {spans['alone']}."
        )
    return notes
