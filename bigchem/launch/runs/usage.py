"""What a run has used: its attempts' seconds times their ranks, and how much of that was training. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bigchem.launch.runs.history import Attempt


class Used(NamedTuple):
    """seconds: duration of a run's attempts. hours: the same times their ranks: of GPUs, or on a CPU of processes."""

    seconds: float
    hours: float


def used(attempts: Sequence[Attempt], until: float) -> Used:
    """What attempts have used. until: end of one that is still open, in seconds since 1970."""
    lasted = [(row.ranks, row.seconds if row.end else max(0.0, until - row.time)) for row in attempts]
    return Used(sum(seconds for _, seconds in lasted), sum(ranks * seconds for ranks, seconds in lasted) / 3600)


def efficiency(training_s: float | None, seconds: float) -> float | None:
    """Share of the attempts' seconds spent training steps that count.

    training_s: from metrics.jsonl's last row. The rest went into starting, resuming, checkpoints, validation, the final
    evaluation, and steps that were lost and repeated. None if nothing has been measured.
    """
    return None if training_s is None or seconds <= 0 else min(1.0, training_s / seconds)


@dataclass(frozen=True)
class Remaining:
    """What is left of a run. waits: it has no nodes yet. seconds: None if unknown."""

    waits: bool
    seconds: float | None


def remaining_of_all(runs: Sequence[Remaining]) -> float | None:
    """Seconds until all runs are done, if as many run at a time as now: each waiting run takes the next free place, in
    order. None if unknown."""
    running = [run.seconds for run in runs if not run.waits]
    known = [run.seconds for run in runs if run.seconds is not None]
    if not running or len(known) < len(runs):
        return None
    places = sorted(seconds for seconds in running if seconds is not None)
    for run in runs:
        if run.waits and run.seconds is not None:
            places = sorted([places[0] + run.seconds, *places[1:]])
    return places[-1]
