"""Which example comes when: a pure function of (seed, rows, mixture, position).

A periodic schedule (mixture.py) gives example g (g = 0, 1, 2, ... over the whole run) its task; every prefix is within
one example of each task's quota. A keyed permutation of the task's rows, with a new key each epoch, gives its row. The
only state is g, so seeking costs the same everywhere.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bigchem.data.order.mixture import Mixture
from bigchem.data.ragged import IntArray

KeyArray = npt.NDArray[np.uint64]

FEISTEL_ROUNDS = 6


@dataclass(frozen=True)
class Examples:
    """Consecutive examples of the order. task_ids, rows, epochs: [n]; rows are numbered per task."""

    task_ids: IntArray
    rows: IntArray
    epochs: IntArray


class Permutation(Protocol):
    """The order of one task's rows in each epoch."""

    size: int

    def at(self, index: IntArray, epoch: int) -> IntArray:
        """Rows [n] at places `index` [n] (each in 0..size-1) of an epoch."""


class Order:
    """The order of a run, which ends at `mixture.end`.

    permutations: of each trained task's rows, by task id. mixture: over the same tasks.
    """

    def __init__(self, permutations: Mapping[int, Permutation], mixture: Mixture) -> None:
        self.mixture = mixture
        self.task_ids: IntArray = mixture.task_ids
        self._permutations = [permutations[int(t)] for t in self.task_ids]
        self._sizes: IntArray = np.array([p.size for p in self._permutations], dtype=np.int64)

    def examples(self, start: int, stop: int) -> Examples:
        """The examples at positions start..stop-1, or to the end of the order."""
        slot, nth = self.mixture.draws(start, stop)
        epoch, index = np.divmod(nth, self._sizes[slot])
        rows = np.empty_like(index)
        for s, permutation in enumerate(self._permutations):
            of_task = np.flatnonzero(slot == s)
            if not len(of_task):
                continue
            # Within a task epochs ascend, and most calls see one.
            epochs, first = np.unique(epoch[of_task], return_index=True)
            for e, chosen in zip(epochs.tolist(), np.split(of_task, first[1:]), strict=True):
                rows[chosen] = permutation.at(index[chosen], e)
        return Examples(self.task_ids[slot], rows, epoch)


class Flat:
    """All rows of a task in one permutation."""

    def __init__(self, seed: int, task_id: int, size: int) -> None:
        self.size, self._seed, self._task_id = size, seed, task_id

    def at(self, index: IntArray, epoch: int) -> IntArray:
        """See Permutation."""
        return permute(index, self.size, permutation_key(self._seed, self._task_id, epoch))


class Windowed:
    """Two levels: the shards are permuted, then the rows within windows of `window` consecutive shards.

    Reads stay within a few shards at a time, which suits remote and parallel storage. Every row still comes once an
    epoch, and which shards share a window changes every epoch.

    shard_rows: [shards] rows of each shard.
    """

    def __init__(self, seed: int, task_id: int, shard_rows: IntArray, window: int) -> None:
        self.size = int(shard_rows.sum())
        self._key = (seed, task_id)
        self._shard_rows, self._window = shard_rows, window
        self._first: IntArray = np.cumsum(shard_rows) - shard_rows  # row at which each shard starts
        self._layout = lru_cache(maxsize=2)(self._layout_of)

    def at(self, index: IntArray, epoch: int) -> IntArray:
        """See Permutation."""
        shards, starts = self._layout(epoch)
        bounds = np.append(starts[:: self._window], self.size)
        place = np.empty_like(index)
        number = np.searchsorted(bounds, index, side="right") - 1
        for w in np.unique(number).tolist():
            chosen = number == w
            first, size = int(bounds[w]), int(bounds[w + 1] - bounds[w])
            place[chosen] = first + permute(index[chosen] - first, size, permutation_key(*self._key, epoch, w))
        at = np.searchsorted(starts, place, side="right") - 1
        rows: IntArray = self._first[shards[at]] + place - starts[at]
        return rows

    def _layout_of(self, epoch: int) -> tuple[IntArray, IntArray]:
        """The epoch's shards that have rows, in order, and the position at which each starts."""
        filled = np.flatnonzero(self._shard_rows)
        shards = filled[permute(np.arange(len(filled)), len(filled), permutation_key(*self._key, epoch, "shards"))]
        rows = self._shard_rows[shards]
        return shards, np.cumsum(rows) - rows


def permutation_key(*parts: int | str) -> KeyArray:
    """Round keys [FEISTEL_ROUNDS] of the permutation that the parts name: seed, task id, epoch, ..."""
    text = "/".join(map(str, parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8 * FEISTEL_ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def permute(index: IntArray, size: int, key: KeyArray) -> IntArray:
    """Images of `index` (each in 0..size-1) under a keyed permutation of 0..size-1.

    A balanced Feistel network over the smallest even number of bits that holds `size`, applied until the image is in
    range (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002): less than four times on average.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    image = _feistel(index, half, key)
    outside = np.flatnonzero(image >= size)
    while len(outside):
        image[outside] = _feistel(image[outside], half, key)
        outside = outside[image[outside] >= size]
    return image


def _feistel(value: IntArray, half: int, key: KeyArray) -> IntArray:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = value.astype(np.uint64) >> shift, value.astype(np.uint64) & mask
    for round_key in key:
        left, right = right, left ^ (mix64(right ^ round_key) & mask)
    return ((left << shift) | right).astype(np.int64)


def mix64(x: KeyArray) -> KeyArray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014); wraps around by design."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
