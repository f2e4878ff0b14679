"""A task's predictions -> its scores, by its record."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bigchem.evaluate.metrics.intervals import Interval, Method, Statistic, intervals
from bigchem.evaluate.protocol.definitions import metrics_of
from bigchem.evaluate.protocol.metric import LOSS, Metric, joined, noted
from bigchem.evaluate.protocol.pairs import Pairs, UnavailableError
from bigchem.tasks import Task


@dataclass(frozen=True)
class Score:
    """One number of the protocol.

    value: None if n/a; `note` then has the reason and the remedy. low, high: 95 % interval, None if not requested or
    not available. n: examples that count. definition: an id of DEFINITIONS. interval: the method behind low and high.
    group: the class of examples, such as "class 3"; empty: all examples. higher_is_better: None for a count.
    """

    task: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    definition: str
    note: str = ""
    interval: Method = ""
    group: str = ""
    higher_is_better: bool | None = None


def score_task(
    task: Task,
    sources: list[str],
    references: Sequence[str | Sequence[str]],
    predictions: list[list[str]],
    *,
    products: list[list[str]] | None = None,
    training: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    similarity: bool = False,
    label_log_probabilities: NDArray[np.float64] | None = None,
    losses: NDArray[np.float64] | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> list[Score]:
    """Scores k-best predictions (best first) of one task by every metric of the protocol.

    references: one per example, or several, any of which is right; metrics that support only one are then n/a.
    products: a forward model's outputs for each example's first predictions, for the round trip of retrosynthesis.
    training: the molecules the model was trained to generate, for novelty. classes: the class of each example, empty
    for none; scores by class follow those of all examples. similarity: also fingerprints of reactions.
    label_log_probabilities, losses: see Pairs; with losses the first score is LOSS. bootstrap: resamples for 95 %
    intervals, shared by all metrics; 0: no intervals, not even Wilson's. workers: processes.
    UserError for an unknown metric of the task; ValueError for lists of unequal length, no examples or an empty k-best
    list.
    """
    pairs = Pairs(
        *(sources, references, predictions, products, workers, training, similarity),
        *(task.labels, label_log_probabilities, losses),
    )
    metrics = metrics_with_loss(task, pairs)
    return score_pairs(task.name, metrics, pairs, classes=classes, bootstrap=bootstrap, seed=seed)


def metrics_with_loss(task: Task, *sides: Pairs) -> tuple[Metric, ...]:
    """The metrics of a task, after LOSS if any side has losses."""
    return (*([LOSS] if any(side.losses is not None for side in sides) else []), *metrics_of(task))


def score_pairs(
    task: str,
    metrics: Sequence[Metric],
    pairs: Pairs,
    *,
    classes: Sequence[str] | None = None,
    bootstrap: int = 0,
    seed: int = 0,
) -> list[Score]:
    """The scores of pairs by these metrics. classes, bootstrap: see score_task."""
    computed = outcomes(metrics, pairs)
    scores = scored(task, metrics, computed, len(pairs.targets), bootstrap, seed)
    for name in sorted({label for label in classes or () if label}, key=_natural):
        members = np.array([label == name for label in classes or ()])
        both = ((m, o) for m, o in zip(metrics, computed, strict=True) if m.by_class)
        chosen = {metric: outcome.of(members) for metric, outcome in both if isinstance(outcome, Statistic)}
        listed = scored(task, list(chosen), list(chosen.values()), int(members.sum()), bootstrap, seed)
        scores += [replace(score, group=f"class {name}") for score in listed]
    return scores


SEVERAL = "any of several references is right: the best of them counts, in BLEU the n-grams of all"
"""The note where examples have several references."""
Outcome = Statistic | float | UnavailableError
"""A computed metric: a statistic, a bare number, or why it is n/a."""


def outcomes(metrics: Sequence[Metric], pairs: Pairs) -> list[Outcome]:
    """The outcome of each metric over these pairs."""
    return [_attempt(metric, pairs) for metric in metrics]


def scored(
    task: str, metrics: Sequence[Metric], outcomes: Sequence[Outcome], examples: int, resamples: int, seed: int
) -> list[Score]:
    """Scores of outcomes; with intervals if resamples > 0. examples: their number."""
    statistics = [outcome for outcome in outcomes if isinstance(outcome, Statistic)]
    found = iter(intervals(statistics, resamples, seed) if resamples else [])
    return [
        _score(task, metric, outcome, next(found, _NONE) if isinstance(outcome, Statistic) else _NONE, examples)
        for metric, outcome in zip(metrics, outcomes, strict=True)
    ]


_NONE = Interval()


def _natural(name: str) -> tuple[bool, int, str]:
    """Sort key of classes: numbers by value, then names."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _attempt(metric: Metric, pairs: Pairs) -> Outcome:
    try:
        if metric.needs > pairs.longest:
            raise UnavailableError(f"the longest list has {pairs.longest} prediction{'s' * (pairs.longest > 1)}")
        found = metric.compute(pairs)
    except UnavailableError as missing:
        return missing
    if not pairs.several or not isinstance(found, Statistic):
        return found
    return noted(found, SEVERAL)


def _score(task: str, metric: Metric, outcome: Outcome, interval: Interval, examples: int) -> Score:
    better = metric.higher_is_better
    missing = Score(task, metric.name, None, None, None, 0, metric.definition, higher_is_better=better)
    if isinstance(outcome, UnavailableError):
        return replace(missing, note=str(outcome))
    if isinstance(outcome, Statistic):
        value, n, note = outcome.value, outcome.n, outcome.note
    else:
        value, n, note = outcome, examples, ""
    if math.isnan(value):
        return replace(missing, note=joined(metric.undefined, note))
    low, high = (None if math.isnan(end) else end for end in (interval.low, interval.high))
    return replace(missing, value=value, low=low, high=high, n=n, note=note, interval=interval.method)
