"""How tasks are mixed: from weights to a schedule of tasks, seekable anywhere. Pure.

The schedule is periodic, and every prefix is within one example of every task's quota. Weights whose ratios are
fractions with a common denominator up to MAX_PERIOD (1:1:1:1:1, 0.3:0.7) are met exactly, others within 1 / MAX_PERIOD.
If repetition is capped, a task leaves when its rows are used up. The other tasks divide its share, and a new schedule
begins.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm

import numpy as np

from bigchem.base.errors import UserError
from bigchem.data.ragged import IntArray

MAX_PERIOD = 65536


@dataclass(frozen=True)
class _Phase:
    """A stretch of the order with one set of tasks.

    start: its first position. used: [tasks] examples of each task before it. schedule: [period] slots. before: [period]
    how often that slot occurs earlier in the period. quota: [tasks] how often each slot occurs in a period.
    """

    start: int
    used: IntArray
    schedule: IntArray
    before: IntArray
    quota: IntArray

    def nth(self, phase: IntArray, turn: IntArray) -> tuple[IntArray, IntArray]:
        """(slot, number of the example among its task's) at place `phase` of period number `turn`."""
        slot = self.schedule[phase]
        return slot, self.used[slot] + turn * self.quota[slot] + self.before[phase]

    def place(self, slot: int, nth: int) -> int:
        """Where, from the phase's start, the slot occurs for the nth time (from 0)."""
        turn, rest = divmod(nth, int(self.quota[slot]))
        return turn * len(self.schedule) + int(np.flatnonzero(self.schedule == slot)[rest])

    def counts(self, length: int) -> IntArray:
        """[tasks] how often each slot occurs in the phase's first `length` places."""
        turns, rest = divmod(length, len(self.schedule))
        counts: IntArray = turns * self.quota + np.bincount(self.schedule[:rest], minlength=len(self.quota))
        return counts


class Mixture:
    """Which task each position of the order belongs to.

    weights, rows: of each trained task by task id. max_epochs: how often a row may be used; 0: no limit.
    requested: each task's share by the weights. end: the position at which every task is used up; None: never.
    """

    def __init__(self, weights: Mapping[int, float], rows: Mapping[int, int], max_epochs: int = 0) -> None:
        self.task_ids: IntArray = np.array(sorted(weights), dtype=np.int64)
        self.requested = {task: weight / sum(weights.values()) for task, weight in weights.items()}
        self._phases: list[_Phase] = []
        self.end: int | None = None
        limits = [rows[int(t)] * max_epochs for t in self.task_ids]
        used: IntArray = np.zeros(len(limits), dtype=np.int64)
        active = list(range(len(limits)))
        start = 0
        while active:
            quota = np.zeros(len(limits), dtype=np.int64)
            quota[active] = quotas([weights[int(self.task_ids[k])] for k in active])
            schedule = fair_schedule(quota)
            phase = _Phase(start, used, schedule, _occurrence(schedule), quota)
            self._phases.append(phase)
            if not max_epochs:
                return
            length = min(phase.place(k, limits[k] - int(used[k])) for k in active)
            start, used = start + length, used + phase.counts(length)
            active = [k for k in active if used[k] < limits[k]]
        self.end = start

    @cached_property
    def shares(self) -> dict[int, float]:
        """Realised share of each task at the start of the order, by task id."""
        first = self._phases[0].quota
        return {int(t): float(q / first.sum()) for t, q in zip(self.task_ids, first, strict=True)}

    def draws(self, start: int, stop: int) -> tuple[IntArray, IntArray]:
        """(slot, nth) [n] of positions start..stop-1, or to the end: task_ids[slot], and the example's number in it."""
        stop = stop if self.end is None else min(stop, self.end)
        number = bisect_right(self._phases, start, key=lambda phase: phase.start) - 1
        slots, nths = [], []
        while start < stop:
            phase = self._phases[number]
            last = stop if number + 1 == len(self._phases) else min(stop, self._phases[number + 1].start)
            turn, place = np.divmod(np.arange(start - phase.start, last - phase.start), len(phase.schedule))
            slot, nth = phase.nth(place, turn)
            slots.append(slot)
            nths.append(nth)
            start, number = last, number + 1
        if not slots:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        return (slots[0], nths[0]) if len(slots) == 1 else (np.concatenate(slots), np.concatenate(nths))


def tempered(weights: Mapping[int, float], rows: Mapping[int, int], temperature: float) -> dict[int, float]:
    """Weights times rows ** (1 / temperature): 1 mixes in proportion to the rows, large temperatures approach `weights`
    (Raffel et al., "Exploring the limits of transfer learning", 2020, section 3.5.2)."""
    largest = max(rows[t] for t in weights)
    return {t: weight * (rows[t] / largest) ** (1 / temperature) for t, weight in weights.items()}


def quotas(weights: list[float]) -> IntArray:
    """Integer quotas [K] >= 1 in the ratios of the weights: exact where a period up to MAX_PERIOD allows it, else by
    largest remainders over MAX_PERIOD."""
    exact = [Fraction(repr(float(w))) for w in weights]  # the decimal as written, not the nearest binary
    shares = [w / sum(exact) for w in exact]
    period = lcm(*(share.denominator for share in shares))
    if period <= MAX_PERIOD and all(shares):
        return np.array([int(share * period) for share in shares], dtype=np.int64)
    due = [share * MAX_PERIOD for share in shares]
    quota = [max(1, int(d)) for d in due]
    while sum(quota) < MAX_PERIOD:
        k = max(range(len(quota)), key=lambda k: due[k] - quota[k])
        quota[k] += 1
    while sum(quota) > MAX_PERIOD:  # tasks so rare that they were rounded up to one
        k = max((k for k in range(len(quota)) if quota[k] > 1), key=lambda k: quota[k] - due[k])
        quota[k] -= 1
    return np.array(quota, dtype=np.int64)


def fair_schedule(quota: IntArray) -> IntArray:
    """A sequence of sum(quota) slots in which slot k occurs quota[k] times, every prefix within one of its share.

    The algorithm is Tijdeman's ("The chairman assignment problem", Discrete Mathematics 32, 1980): of the slots whose
    share has grown enough, take the one with the earliest deadline. Deviations stay below 1 - 1/(2K - 2). Readiness is
    decided in integers; only ties of deadlines depend on floats.
    """
    shares = [(k, int(q)) for k, q in enumerate(quota) if q]
    period, room = int(quota.sum()), 2 * len(shares) - 2
    if not room:
        return np.full(period, shares[0][0], dtype=np.int64)
    count = dict.fromkeys((k for k, _ in shares), 0)
    schedule = np.empty(period, dtype=np.int64)
    for position in range(period):
        _, chosen = min(
            ((count[k] * room + room - 1) / q, k)
            for k, q in shares
            if room * (q * (position + 1) - count[k] * period) >= period
        )
        schedule[position] = chosen
        count[chosen] += 1
    return schedule


def _occurrence(schedule: IntArray) -> IntArray:
    """[period] how often each place's slot occurs before it."""
    before = np.empty_like(schedule)
    for slot in np.unique(schedule):
        places = np.flatnonzero(schedule == slot)
        before[places] = np.arange(len(places))
    return before


def check_end(end: int | None, position: int, where: str) -> None:
    """UserError if the order ends at or before `position`."""
    if end is not None and position >= end:
        raise UserError(
            f"the data is used up after {end:,} examples",
            where,
            "raise it (0: no limit), or train fewer steps",
        )
