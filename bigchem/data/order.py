"""Which example comes when: a pure function of (seed, row counts, mixture, position).

Example number g (g = 0, 1, 2, ... over the whole run) belongs to a task by a periodic schedule whose every prefix is
within one example of exact proportions; its row is a keyed permutation of that task's rows, with a new key each epoch.
No buffer, no state but g: seeking costs the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

PERIOD = 1024
"""Mixture weights are rounded to multiples of 1 / PERIOD (largest remainder; a trained task gets at least one)."""
FEISTEL_ROUNDS = 6


@dataclass(frozen=True)
class Examples:
    """Consecutive examples of the order. task_ids, rows, epochs: [n]; rows count within the task's own rows."""

    task_ids: IntArray
    rows: IntArray
    epochs: IntArray


class Order:
    """The order of a run: `order.examples(start, stop)` gives examples start..stop-1.

    rows: number of rows of each trained task, by task id. weights: mixture weight of the same tasks.
    """

    def __init__(self, seed: int, rows: Mapping[int, int], weights: Mapping[int, float]) -> None:
        self.seed = seed
        self.task_ids: IntArray = np.array(sorted(weights), dtype=np.int64)
        self.rows: IntArray = np.array([rows[t] for t in self.task_ids], dtype=np.int64)
        quota = quantise(np.array([weights[t] for t in self.task_ids], dtype=np.float64), PERIOD)
        self.quota = quota
        self._schedule = fair_schedule(quota)
        hits = self._schedule[:, None] == np.arange(len(quota))[None, :]
        self._before: IntArray = np.cumsum(hits, axis=0) - hits  # [PERIOD, tasks]

    def examples(self, start: int, stop: int) -> Examples:
        """The examples at positions start..stop-1."""
        position: IntArray = np.arange(start, stop, dtype=np.int64)
        period, phase = np.divmod(position, PERIOD)
        slot = self._schedule[phase]
        nth = period * self.quota[slot] + self._before[phase, slot]  # the nth example of its task
        epoch, index = np.divmod(nth, self.rows[slot])
        rows = np.empty_like(index)
        for s in range(len(self.task_ids)):
            for e in np.unique(epoch[slot == s]):
                chosen = (slot == s) & (epoch == e)
                key = permutation_key(self.seed, int(self.task_ids[s]), int(e))
                rows[chosen] = permute(index[chosen], int(self.rows[s]), key)
        return Examples(self.task_ids[slot], rows, epoch)


def quantise(weights: npt.NDArray[np.float64], period: int) -> IntArray:
    """Integer quotas [K] >= 1 that sum to `period`, as near to the weights as largest remainders get."""
    share = weights / weights.sum() * period
    quota: IntArray = np.maximum(np.floor(share).astype(np.int64), 1)
    while quota.sum() < period:
        quota[np.argmax(share - quota)] += 1
    while quota.sum() > period:
        quota[np.argmin(np.where(quota > 1, share - quota, np.inf))] -= 1
    return quota


def fair_schedule(quota: IntArray) -> IntArray:
    """A sequence of slots of length sum(quota) in which slot k comes quota[k] times, every prefix within one of its
    share.

    The algorithm is Tijdeman's ("The chairman assignment problem", Discrete Mathematics 32, 1980): of the slots whose
    share has grown enough, take the one whose deadline comes first. Deviations stay below 1 - 1/(2K - 2).
    """
    slots, period = len(quota), int(quota.sum())
    if slots == 1:
        return np.zeros(period, dtype=np.int64)
    share = quota / period
    slack = 1.0 - 1.0 / (2 * slots - 2)
    count = np.zeros(slots)
    schedule = np.empty(period, dtype=np.int64)
    for position in range(period):
        ready = share * (position + 1) - count >= 1.0 - slack - 1e-9
        deadline = np.where(ready, (count + slack) / share, np.inf)
        schedule[position] = chosen = int(np.argmin(deadline))
        count[chosen] += 1
    return schedule


def permutation_key(seed: int, task_id: int, epoch: int) -> npt.NDArray[np.uint64]:
    """Round keys [FEISTEL_ROUNDS] of one task's permutation in one epoch."""
    digest = hashlib.blake2b(f"{seed}/{task_id}/{epoch}".encode(), digest_size=8 * FEISTEL_ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def permute(index: IntArray, size: int, key: npt.NDArray[np.uint64]) -> IntArray:
    """Images of `index` (each in 0..size-1) under a keyed permutation of 0..size-1.

    A balanced Feistel network over the smallest even number of bits that holds `size`, walked until the image falls
    inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002): less than four turns on average.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    image = index.copy()
    outside = np.ones(len(image), dtype=bool)
    while outside.any():
        image[outside] = _feistel(image[outside], half, key)
        outside = image >= size
    return image


def _feistel(value: IntArray, half: int, key: npt.NDArray[np.uint64]) -> IntArray:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = value.astype(np.uint64) >> shift, value.astype(np.uint64) & mask
    for round_key in key:
        left, right = right, left ^ (_mix(right ^ round_key) & mask)
    return ((left << shift) | right).astype(np.int64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014); wraps around by design."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
