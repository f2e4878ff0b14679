"""A task's predictions -> its scores, by definitions.PROTOCOL."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bigchem.errors import unknown
from bigchem.evaluate.definitions import PROTOCOL, Metric
from bigchem.evaluate.intervals import Statistic, percentile_intervals
from bigchem.evaluate.pairs import Pairs, UnavailableError


@dataclass(frozen=True)
class Score:
    """One number of the protocol.

    value: None where it is n/a; `note` then has the remedy. low, high: 95 % interval, None where none was asked for or
    can be had. n: examples that count. definition: an id of definitions.DEFINITIONS.
    """

    task: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    definition: str
    note: str = ""


def score_task(
    task: str,
    sources: list[str],
    references: list[str],
    predictions: list[list[str]],
    *,
    products: list[str] | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> list[Score]:
    """Scores k-best predictions (best first) of one task by every metric of the protocol.

    products: what a forward model makes of each best prediction, for the round trip of retrosynthesis. bootstrap:
    resamples of the examples for 95 % intervals, the same for all metrics; 0: none. workers: processes.
    UserError for an unknown task; ValueError for lists of unequal length, no examples or an empty k-best list.
    """
    metrics, computed = outcomes(task, Pairs(sources, references, predictions, products, workers))
    limits = _limits(computed, bootstrap, seed)
    return [
        _score(task, metric, outcome, limit, len(references))
        for metric, outcome, limit in zip(metrics, computed, limits, strict=True)
    ]


Outcome = Statistic | float | UnavailableError
"""What became of a metric: sums, a bare number, or a remedy."""


def outcomes(task: str, pairs: Pairs) -> tuple[list[Metric], list[Outcome]]:
    """The metrics of a task that these pairs can have, and what became of each. UserError for an
    unknown task."""
    if task not in PROTOCOL:
        unknown("task", task, list(PROTOCOL))
    metrics = [metric for metric in PROTOCOL[task] if metric.needs <= pairs.shortest and metric.applies(pairs)]
    return metrics, [_attempt(metric, pairs) for metric in metrics]


def _attempt(metric: Metric, pairs: Pairs) -> Outcome:
    try:
        return metric.compute(pairs)
    except UnavailableError as missing:
        return missing


def _limits(outcomes: list[Outcome], resamples: int, seed: int) -> list[tuple[float, float]]:
    """An interval for each outcome, NaN where there is none."""
    statistics = [outcome for outcome in outcomes if isinstance(outcome, Statistic)]
    found = iter(percentile_intervals(statistics, resamples, seed) if resamples else [])
    none = (math.nan, math.nan)
    return [next(found, none) if isinstance(outcome, Statistic) else none for outcome in outcomes]


def _score(task: str, metric: Metric, outcome: Outcome, limit: tuple[float, float], examples: int) -> Score:
    if isinstance(outcome, UnavailableError):
        return Score(task, metric.name, None, None, None, 0, metric.definition, str(outcome))
    if isinstance(outcome, Statistic):
        value, n, note = outcome.value, outcome.n, outcome.note
    else:
        value, n, note = outcome, examples, ""
    if math.isnan(value):
        return Score(task, metric.name, None, None, None, 0, metric.definition, "undefined: no prediction counts")
    low, high = (None if math.isnan(end) else end for end in limit)
    return Score(task, metric.name, value, low, high, n, metric.definition, note)
