"""What must not be averaged or compared: other data, splits, decodings, definitions, mixtures, repeated runs (PURE)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bigchem.sweep.scores.axes import by_setting
from bigchem.sweep.scores.mixtures import shares
from bigchem.sweep.scores.records import Run, Score
from bigchem.tasks import Task

Problem = tuple[str, str, str]
"""(what, where, hint)."""
SEPARATELY = "analyse them separately"


def problems(scores: Sequence[Score], apart: Sequence[Score]) -> Iterator[Problem]:
    """What is refused unless allowed. apart: scores of shared models on other mixtures, see mixtures.set_apart."""
    yield from _evaluated_otherwise([*scores, *apart])
    together = ((shares(s.run.mixture), s.run.source) for s in scores if s.run.regime == "together")
    yield from _differing("mixtures of the shared models", together, SEPARATELY)
    yield from _twice(scores)
    for mixture in dict.fromkeys(shares(s.run.mixture) for s in apart):
        yield from _twice([s for s in apart if shares(s.run.mixture) == mixture])


def axis_problems(by_axis: Mapping[str, Sequence[Score]]) -> Iterator[Problem]:
    """The same of the runs of all values of an axis. Data may differ if the axis is a field of [data]."""
    for axis, scores in by_axis.items():
        yield from _evaluated_otherwise(scores, same_data=not axis.startswith("data."))
        for group in by_setting(scores, axis).values():
            yield from _twice(group)


def _evaluated_otherwise(every: Sequence[Score], *, same_data: bool = True) -> Iterator[Problem]:
    runs = {id(s.run): s.run for s in every}.values()
    if same_data:
        yield from _differing("data fingerprints", ((run.fingerprint, run.source) for run in runs), SEPARATELY)
    yield from _differing("splits", ((run.split, run.source) for run in runs), SEPARATELY)
    yield from _differing("decodings", ((run.decoding, run.source) for run in runs), SEPARATELY)
    for task in dict.fromkeys(s.task for s in every):
        records = ((_record(s.run.tasks[task]), s.run.source) for s in every if s.task == task)
        yield from _differing(f"records of the task {task}", records, SEPARATELY)
    for task, metric in dict.fromkeys((s.task, s.metric) for s in every):
        given = ((s.definition, s.run.source) for s in every if (s.task, s.metric) == (task, metric))
        yield from _differing(f"definitions of {task} {metric}", given, "score them again with one version")


def _differing(name: str, given: Iterable[tuple[str | None, str]], hint: str) -> Iterator[Problem]:
    """given: (value, file). An empty value is unknown, not different."""
    first: dict[str, str] = {}
    for value, source in given:
        if value:
            first.setdefault(value, source)
    if len(first) > 1:
        values, sources = list(first), list(first.values())
        yield f"different {name}: '{values[0]}' and '{values[1]}'", f"{sources[0]} and {sources[1]}", hint


def _twice(scores: Sequence[Score]) -> Iterator[Problem]:
    """Two runs of one size, regime and seed; each pair is reported once."""
    cells: dict[tuple[Any, ...], Run] = {}
    reported = set()
    for score in scores:
        run = score.run
        other = cells.setdefault((score.task, score.metric, run.regime, run.parameters, run.seed), run)
        if other is not run and (id(other), id(run)) not in reported:
            reported.add((id(other), id(run)))
            what = f"two runs of {run.parameters} parameters, {score.task} {run.regime}, seed {run.seed}"
            yield what, f"{other.source} and {run.source}", "give one of them, or different seeds"


def _record(task: Task) -> str:
    """What a task's scores depend on. The id, the prompts and the decimals are the data's, which have a fingerprint."""
    labels = f", labels {', '.join(task.labels)}" if task.labels else ""
    what = f"{task.source_domain} to {task.target_domain}, metrics of {task.family}, headline {task.headline}"
    return what + labels
