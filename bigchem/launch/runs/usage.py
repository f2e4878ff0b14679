"""What a run has used: its attempts' seconds, times their ranks, and how much of that was training. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bigchem.launch.runs.history import Attempt


class Used(NamedTuple):
    """seconds: that a run's attempts lasted. hours: the same times their ranks, so of GPUs, or on a CPU of
    processes."""

    seconds: float
    hours: float


def used(attempts: Sequence[Attempt], until: float) -> Used:
    """What attempts have used. until: of one that is still open, in seconds since 1970."""
    lasted = [(row.ranks, row.seconds if row.end else max(0.0, until - row.time)) for row in attempts]
    return Used(sum(seconds for _, seconds in lasted), sum(ranks * seconds for ranks, seconds in lasted) / 3600)


def efficiency(training_s: float | None, seconds: float) -> float | None:
    """Share of the seconds that a run's attempts lasted in which it trained steps that count.

    training_s: of metrics.jsonl's last row. The rest went into starting, resuming, checkpoints, validation, evaluation
    at the end, and steps that were lost and done again. None where nothing has been measured.
    """
    return None if training_s is None or seconds <= 0 else min(1.0, training_s / seconds)


@dataclass(frozen=True)
class Remaining:
    """What is left of a run. waits: it has no nodes yet. seconds: None where nothing says how long it takes."""

    waits: bool
    seconds: float | None


def remaining_of_all(runs: Sequence[Remaining]) -> float | None:
    """Seconds until the last of some runs is done, if as many run at a time as do now: each that waits takes the next
    free place, in order. None where that cannot be told."""
    running = [run.seconds for run in runs if not run.waits]
    known = [run.seconds for run in runs if run.seconds is not None]
    if not running or len(known) < len(runs):
        return None
    places = sorted(seconds for seconds in running if seconds is not None)
    for run in runs:
        if run.waits and run.seconds is not None:
            places = sorted([places[0] + run.seconds, *places[1:]])
    return places[-1]
