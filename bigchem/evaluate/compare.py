"""Paired comparison of two files of predictions for the same examples: differences and their intervals."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from bigchem.base.printable import markup
from bigchem.evaluate.metrics.intervals import ENOUGH, Interval, Statistic, paired_intervals
from bigchem.evaluate.prediction_files.align import aligned
from bigchem.evaluate.prediction_files.tables import AS_IT_LOOKS, ReadAs
from bigchem.evaluate.protocol.metric import Metric
from bigchem.evaluate.protocol.pairs import UnavailableError
from bigchem.evaluate.protocol.score_task import Outcome, metrics_with_loss, outcomes
from bigchem.evaluate.score import examples_of, pairs_of, print_counts
from bigchem.tasks import Task

Verdict = Literal["better", "worse", "open", "n/a"]
"""Of the second file. better, worse: the interval excludes 0; open: it contains 0; n/a: there is none."""


@dataclass(frozen=True)
class Difference:
    """A metric of two files. None if n/a; `note` then has the remedy.

    difference: second - first. low, high: its 95 % interval. n: examples in each file and each resample.
    """

    task: str
    metric: str
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    n: int
    definition: str
    note: str = ""


def compare_files(
    task: Task,
    first: Path,
    second: Path,
    *,
    how: ReadAs = AS_IT_LOOKS,
    similarity: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
    workers: int = 1,
) -> list[Difference]:
    """Differences, second - first, of every metric: of shares with Bonett and Price's interval (2012), of others with
    that of a paired bootstrap (Koehn 2004).

    Both files share their resamples, so difficulty common to both cancels. UserError unless they hold the same
    examples, in any order: see aligned.
    """
    before, after = (examples_of(task, path, how) for path in (first, second))
    for side, path in ((before, first), (after, second)):
        print_counts(side, path)
    read = [before, aligned(before, after, first, second)]
    files = zip(read, (first, second), strict=True)
    sides = [pairs_of(task, side, path, workers, similarity) for side, path in files]
    metrics = metrics_with_loss(task, *sides)
    one, two = (outcomes(metrics, side) for side in sides)
    pairs = list(zip(one, two, strict=True))
    limits = _limits(pairs, bootstrap, seed)
    return [
        _difference(task.name, metric, *pair, limit, len(before.sources))
        for metric, pair, limit in zip(metrics, pairs, limits, strict=True)
    ]


def table(differences: list[Difference], first: str, second: str) -> Table:
    """The differences as a terminal table. first, second: names of the two files' columns."""
    out = Table("task", "metric")
    for name in (first, second, "difference", "95 % interval"):
        out.add_column(markup(name), justify="right")
    for name in ("second is", "n", "definition", "note"):
        out.add_column(name)
    by_note: dict[str, list[str]] = {}
    for d in differences:
        if d.first is d.second is None:
            by_note.setdefault(d.note, []).append(d.metric)
    for d in differences:
        together = by_note.get(d.note, []) if d.first is d.second is None else []
        if len(together) > 1:
            if d.metric == together[0]:
                note = f"{d.note}: {', '.join(together)}"
                out.add_row(d.task, f"{len(together)} metrics", *["n/a"] * 3, "", d.verdict, "0", "", markup(note))
            continue
        interval = "" if d.low is None else f"{d.low:+z.4f} .. {d.high:+z.4f}"
        values = [
            "n/a" if value is None else f"{value:{sign}z.4f}"
            for value, sign in ((d.first, ""), (d.second, ""), (d.difference, "+"))
        ]
        out.add_row(d.task, d.metric, *values, interval, d.verdict, str(d.n), d.definition, markup(d.note))
    return out


def to_json(differences: list[Difference]) -> list[dict[str, Any]]:
    """The differences as JSON values, one object each, keys as in Difference, with `excludes_zero`."""
    return [{**asdict(d), "excludes_zero": d.verdict in ("better", "worse")} for d in differences]


def _limits(pairs: list[tuple[Outcome, Outcome]], resamples: int, seed: int) -> list[Interval]:
    """The interval of each difference; empty unless both sides are statistics."""
    if not resamples:
        return [Interval()] * len(pairs)
    sums = [(a, b) for a, b in pairs if isinstance(a, Statistic) and isinstance(b, Statistic)]
    found = iter(paired_intervals(sums, resamples, seed))
    return [next(found) if isinstance(a, Statistic) and isinstance(b, Statistic) else Interval() for a, b in pairs]


def _difference(task: str, metric: Metric, one: Outcome, two: Outcome, limit: Interval, examples: int) -> Difference:
    missing = next((side for side in (one, two) if isinstance(side, UnavailableError)), None)
    first, second = (_value(side) for side in (one, two))
    note = str(missing) if missing else ""
    if first is None or second is None:
        note = note or metric.undefined
        return Difference(task, metric.name, first, second, None, None, None, "n/a", examples, metric.definition, note)
    low, high = (None if math.isnan(end) else end for end in (limit.low, limit.high))
    if limit.method == "too few":
        note = f"too few for an interval: under {ENOUGH} examples count"
    verdict: Verdict = "n/a"
    if low is not None and high is not None:
        verdict = "open" if low <= 0 <= high else "better" if (low > 0) == metric.higher_is_better else "worse"
    return Difference(
        task, metric.name, first, second, second - first, low, high, verdict, examples, metric.definition, note
    )


def _value(outcome: Outcome) -> float | None:
    if isinstance(outcome, UnavailableError):
        return None
    value = outcome.value if isinstance(outcome, Statistic) else outcome
    return None if math.isnan(value) else value
