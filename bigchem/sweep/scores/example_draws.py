"""Metrics of all runs over the same resamples of the test examples, so that difficulty common to the runs cancels.

Test examples are the same at every size and seed: whatever is computed from several runs (a gain, a slope of gains)
is computed within each resample, and its interval is that over the resamples.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.evaluate.metrics.intervals import ENOUGH, Floats, Statistic, resampled
from bigchem.evaluate.metrics.pool import SMALL
from bigchem.evaluate.metrics.reactions import SIMILARITIES
from bigchem.evaluate.prediction_files.align import aligned
from bigchem.evaluate.prediction_files.tables import Examples
from bigchem.evaluate.protocol.definitions import metrics_of
from bigchem.evaluate.protocol.pairs import Pairs, UnavailableError
from bigchem.evaluate.protocol.score_task import metrics_with_loss, outcomes
from bigchem.evaluate.score import examples_of, pairs_of
from bigchem.sweep.scores.records import LOSS, Results, Run
from bigchem.sweep.scores.score_table import RESAMPLES
from bigchem.tasks import Task

_SAME = 1e-6
"""Rescored values may differ from the recorded ones by rounding only."""


class Drawn(NamedTuple):
    """values: metric -> its value over all examples, and its values [resamples]. missing: metric -> why it is n/a."""

    values: dict[str, tuple[float, Floats]]
    missing: dict[str, str]


@dataclass(frozen=True)
class ExampleDraws:
    """Bootstrap values of metrics over shared resamples of the test examples.

    values: (task, metric, id of the run) -> [resamples]; value b of every run of a task is over the same examples. NaN
    where the metric is undefined in a resample. Absent: metrics that predictions alone do not give, those of fewer than
    ENOUGH examples, and runs that the notes of example_draws name.
    """

    values: dict[tuple[str, str, int], Floats]


def example_draws(
    results: Results, progress: Progress, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[ExampleDraws, tuple[str, ...]]:
    """The draws of every run whose predictions are available; notes name what is left out, and why.

    Left out are files that cannot be read, files of other examples than most runs of the task have, and metrics that no
    longer score as recorded.
    """
    recorded: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for score in (*results.scores, *results.apart):
        if score.estimate is not None:
            recorded[score.task, id(score.run)][score.metric] = score.estimate.value
    runs_of: dict[str, list[Run]] = defaultdict(list)
    for run in results.every_run:
        for task in run.predictions:
            if (task, id(run)) in recorded:
                runs_of[task].append(run)
    values: dict[tuple[str, str, int], Floats] = {}
    left_out = _LeftOut()
    if not runs_of:
        return ExampleDraws(values), ()
    with progress.bar("resampling the test examples of all runs", sum(map(len, runs_of.values()))) as bar:
        for task, runs in runs_of.items():
            sides = _same_examples(task, runs, recorded, left_out)
            bar.advance(len(runs) - len(sides))
            has_losses = {
                id(run) for run, pairs in sides if LOSS in {m.name for m in metrics_with_loss(run.tasks[task], pairs)}
            }
            for run, drawn in _drawn(task, sides, resamples, seed):
                known = recorded[task, id(run)]
                confirmed = _confirmed(task, run, drawn, known, left_out, has_losses=id(run) in has_losses)
                values |= {(task, metric, id(run)): found for metric, found in confirmed.items()}
                bar.advance()
    return ExampleDraws(values), left_out.notes()


class _LeftOut:
    """What is left out of the draws: a reason -> what it holds for, such as names of runs, each once."""

    def __init__(self) -> None:
        self._found: dict[str, set[str]] = {}

    def add(self, reason: str, what: str) -> None:
        self._found.setdefault(reason, set()).add(what)

    def notes(self) -> tuple[str, ...]:
        found = sorted(self._found.items(), key=lambda item: item[0])  # runs come as their processes end
        return tuple(f"Not resampled with the other runs: {why}: {', '.join(sorted(what))}." for why, what in found)


def _same_examples(
    task: str, runs: list[Run], recorded: Mapping[tuple[str, int], Mapping[str, float]], left_out: _LeftOut
) -> list[tuple[Run, Pairs]]:
    """The runs of a task whose files hold the same examples, in one order; of several such groups the largest."""
    groups: list[list[tuple[Run, Examples]]] = []
    for run in runs:
        file = Path(run.predictions[task])
        try:
            read = examples_of(run.tasks[task], file)
        except UserError as error:
            left_out.add(f"{task}, {error.what}", _name(run))
            continue
        for group in groups:
            first_run, first = group[0]
            try:
                found = aligned(first, read, Path(first_run.predictions[task]), file)
            except UserError:
                continue
            # Equal texts are kept once, as a hundred runs have the same ones.
            group.append((run, found._replace(sources=first.sources, references=first.references)))
            break
        else:
            groups.append([(run, read)])
    kept = max(groups, key=len, default=[])
    for group in groups:
        for run, _ in group if group is not kept else ():
            left_out.add(f"{task}, other test examples than {_name(kept[0][0])}", _name(run))
    sides = []
    for run, read in kept:
        similar = not recorded[task, id(run)].keys().isdisjoint(SIMILARITIES)
        try:
            sides.append((run, pairs_of(run.tasks[task], read, run.predictions[task], 1, similar)))
        except UserError as error:
            left_out.add(f"{task}, {error.what}", _name(run))
    return sides


def _drawn(task: str, sides: list[tuple[Run, Pairs]], resamples: int, seed: int) -> Iterator[tuple[Run, Drawn]]:
    """Each run's draws, as they are ready: in several processes, or in this one for few examples (see pool)."""
    workers = min(len(os.sched_getaffinity(0)), len(sides))
    if workers <= 1 or sum(len(pairs.sources) for _, pairs in sides) < SMALL:
        for run, pairs in sides:
            yield run, _resampled(run.tasks[task], pairs, resamples, seed)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_resampled, run.tasks[task], pairs, resamples, seed): run for run, pairs in sides}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _resampled(task: Task, pairs: Pairs, resamples: int, seed: int) -> Drawn:
    metrics = [metric for metric in metrics_with_loss(task, pairs) if metric.resampled]
    every = {metric.name: outcome for metric, outcome in zip(metrics, outcomes(metrics, pairs), strict=True)}
    found = {
        name: outcome
        for name, outcome in every.items()
        if isinstance(outcome, Statistic) and outcome.n >= ENOUGH and not math.isnan(outcome.value)
    }
    draws = resampled(list(found.values()), resamples, seed)
    values = {name: (one.value, values) for (name, one), values in zip(found.items(), draws, strict=True)}
    return Drawn(values, {name: str(why) for name, why in every.items() if isinstance(why, UnavailableError)})


def _confirmed(
    task: str, run: Run, drawn: Drawn, recorded: Mapping[str, float], left_out: _LeftOut, *, has_losses: bool
) -> dict[str, Floats]:
    """The draws of the metrics that score as recorded. has_losses: predictions have the losses of examples."""
    changed = [
        metric
        for metric, (value, _) in drawn.values.items()
        if metric in recorded and not math.isclose(value, recorded[metric], rel_tol=_SAME, abs_tol=_SAME)
    ]
    if changed:
        left_out.add(f"{task}, no longer as recorded: {', '.join(changed)}", _name(run))
    for metric in recorded.keys() - drawn.values.keys():
        if metric == LOSS and not has_losses:
            left_out.add(
                f"{task}, the loss, which `bigchem evaluate` adds to earlier versions' predictions", _name(run)
            )
        elif metric in {known.name for known in metrics_of(run.tasks[task]) if not known.resampled}:
            left_out.add("a distance between distributions is no sum over examples", f"{task} {metric}")
        elif metric in drawn.missing:
            left_out.add(f"n/a on this machine or from predictions alone ({drawn.missing[metric]})", f"{task} {metric}")
        else:
            left_out.add(f"fewer than {ENOUGH} examples in one run or all", f"{task} {metric}")
    return {m: values for m, (_, values) in drawn.values.items() if m in recorded and m not in changed}


def _name(run: Run) -> str:
    return f"{run.name} (seed {run.seed})"
