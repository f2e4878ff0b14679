"""A task's predictions -> its scores, by definitions.PROTOCOL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bigchem.base.errors import unknown
from bigchem.evaluate.metrics.intervals import Interval, Method, Statistic, intervals
from bigchem.evaluate.protocol.definitions import PROTOCOL
from bigchem.evaluate.protocol.metric import Metric
from bigchem.evaluate.protocol.pairs import Pairs, UnavailableError


@dataclass(frozen=True)
class Score:
    """One number of the protocol.

    value: None where it is n/a; `note` then has the reason and the remedy. low, high: 95 % interval, None where none
    was asked for or can be had. n: examples that count. definition: an id of definitions.DEFINITIONS. interval: how
    low and high were found. group: the class of examples that it is over, such as "class 3"; empty: all of them.
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


def score_task(
    task: str,
    sources: list[str],
    references: Sequence[str | Sequence[str]],
    predictions: list[list[str]],
    *,
    products: list[list[str]] | None = None,
    training: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    similarity: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> list[Score]:
    """Scores k-best predictions (best first) of one task by every metric of the protocol.

    references: of each example the one, or several of which each is right; metrics that know only one are then n/a.
    products: what a forward model makes of each example's first predictions, for the round trip of retrosynthesis.
    training: the molecules that the model was trained to generate, for the novelty of generation. classes: of each
    example, the class whose metrics stand apart behind those of all; empty: of no class. similarity: also
    fingerprints of reactions. bootstrap: resamples of the
    examples for 95 % intervals, the same for all metrics; 0: no intervals, Wilson's neither. workers: processes.
    UserError for an unknown task; ValueError for lists of unequal length, no examples or an empty k-best list.
    """
    pairs = Pairs(sources, references, predictions, products, workers, training, similarity)
    metrics, computed = outcomes(task, pairs)
    scores = scored(task, metrics, computed, len(references), bootstrap, seed)
    for name in sorted({one for one in classes or () if one}, key=_natural):
        members = np.array([one == name for one in classes or ()])
        both = ((m, o) for m, o in zip(metrics, computed, strict=True) if m.by_class)
        chosen = {metric: outcome.of(members) for metric, outcome in both if isinstance(outcome, Statistic)}
        listed = scored(task, list(chosen), list(chosen.values()), int(members.sum()), bootstrap, seed)
        scores += [replace(score, group=f"class {name}") for score in listed]
    return scores


SEVERAL = "any of several references is right: the best of them counts, in BLEU the n-grams of all"
"""The note where examples have several references."""
Outcome = Statistic | float | UnavailableError
"""What became of a metric: sums, a bare number, or a remedy."""


def outcomes(task: str, pairs: Pairs) -> tuple[list[Metric], list[Outcome]]:
    """The metrics of a task, and what became of each over these pairs. UserError for an unknown task."""
    if task not in PROTOCOL:
        unknown("task", task, list(PROTOCOL))
    metrics = list(PROTOCOL[task])
    return metrics, [_attempt(metric, pairs) for metric in metrics]


def scored(
    task: str, metrics: Sequence[Metric], outcomes: Sequence[Outcome], examples: int, resamples: int, seed: int
) -> list[Score]:
    """The outcomes as scores, with intervals if there are resamples. examples: how many there are."""
    statistics = [outcome for outcome in outcomes if isinstance(outcome, Statistic)]
    found = iter(intervals(statistics, resamples, seed) if resamples else [])
    return [
        _score(task, metric, outcome, next(found, _NONE) if isinstance(outcome, Statistic) else _NONE, examples)
        for metric, outcome in zip(metrics, outcomes, strict=True)
    ]


_NONE = Interval()


def _natural(name: str) -> tuple[bool, int, str]:
    """Order of classes: numbers by their size, then names."""
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
    return replace(found, note="; ".join(filter(None, (found.note, SEVERAL))))


def _score(task: str, metric: Metric, outcome: Outcome, interval: Interval, examples: int) -> Score:
    missing = Score(task, metric.name, None, None, None, 0, metric.definition)
    if isinstance(outcome, UnavailableError):
        return replace(missing, note=str(outcome))
    if isinstance(outcome, Statistic):
        value, n, note = outcome.value, outcome.n, outcome.note
    else:
        value, n, note = outcome, examples, ""
    if math.isnan(value):
        return replace(missing, note=metric.undefined)
    low, high = (None if math.isnan(end) else end for end in (interval.low, interval.high))
    return Score(task, metric.name, value, low, high, n, metric.definition, note, interval.method)
