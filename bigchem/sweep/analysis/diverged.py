"""Runs that diverged: far worse than their other seeds, and than smaller models (PURE)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from bigchem.sweep.scores.records import LOSS, Run, Score

FAR = 8.0
"""Standard deviations from the median of the other seeds."""
OF_PAIRS = 0.954
"""The median distance of two draws from a normal distribution, in standard deviations: 0.6745 * sqrt(2)."""
SEEDS = 3
"""Fewer tell only that they differ, not which is the odd one."""


@dataclass(frozen=True)
class Diverged:
    """A run, and the score that shows it: value against the median of its other seeds."""

    run: Run
    task: str
    metric: str
    value: float
    others: float


def diverged(scores: Sequence[Score]) -> list[Diverged]:
    """Runs whose score of a task is FAR worse than their seeds', and no better than that of any smaller model trained
    on the same tasks (of the smallest, than any other). Judged by the loss, where a task has it.

    The standard deviation is that of a seed, from the median distance of all pairs of seeds, which a diverged run
    hardly moves; or the range of the run's other seeds, if that is larger.
    """
    found: dict[int, Diverged] = {}
    for task in dict.fromkeys(score.task for score in scores):
        metrics = {score.metric for score in scores if score.task == task and score.estimate is not None}
        for metric in [LOSS] if LOSS in metrics else sorted(metrics):
            for each in _of_metric([s for s in scores if (s.task, s.metric) == (task, metric)]):
                found.setdefault(id(each.run), each)
    return list(found.values())


def _of_metric(scores: Sequence[Score]) -> list[Diverged]:
    groups: dict[tuple[int, tuple[str, ...]], list[tuple[Run, float]]] = {}
    for score in scores:
        if score.estimate is not None:
            worse = -score.estimate.value if score.scale.higher_is_better else score.estimate.value
            key = (score.run.parameters, tuple(sorted(score.run.mixture)) or (score.run.regime,))
            groups.setdefault(key, []).append((score.run, worse))
    distances = [abs(a - b) for group in groups.values() for (_, a), (_, b) in combinations(group, 2)]
    if not distances:
        return []
    seed = median(distances) / OF_PAIRS
    if seed == 0:  # most seeds are equal, as of a share that is 0 or 1: any other value would be far
        return []
    found = []
    for (parameters, tasks), group in groups.items():
        smaller = [v for (size, mixed), each in groups.items() if mixed == tasks and size < parameters for _, v in each]
        for run, value in group if len(group) >= SEEDS else ():
            others = [v for other, v in group if other is not run]
            far = value - median(others) > FAR * max(seed, max(others) - min(others))
            if far and value >= max([*smaller, *others]):
                score = next(s for s in scores if s.run is run)
                sign = -1 if score.scale.higher_is_better else 1
                found.append(Diverged(run, score.task, score.metric, sign * value, sign * median(others)))
    return found
