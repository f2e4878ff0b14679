"""From the order to packed micro-batches: which examples make a step, and who computes which.

An optimizer step takes the next examples of the order up to `global_tokens`; ranks and accumulation never enter, so
every world size sees the same steps. The step's examples are then dealt into `world_size * grad_accum_steps`
micro-batches of at most `micro_tokens` tokens, balanced, deterministically. Every rank computes the whole deal from
lengths alone and reads only its own rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bigchem.data.order import IntArray, Order


@dataclass(frozen=True)
class Step:
    """The examples of one optimizer step, on all ranks.

    start, stop: positions in the order. task_ids, rows: [n]. lengths: [n, 2] source and target tokens.
    """

    start: int
    stop: int
    task_ids: IntArray
    rows: IntArray
    lengths: IntArray

    @property
    def tokens(self) -> int:
        """Real tokens, source and target."""
        return int(self.lengths.sum())

    @property
    def target_tokens(self) -> int:
        """What the step's loss is divided by."""
        return int(self.lengths[:, 1].sum())


class Steps:
    """Cuts the order into steps.

    lengths: [rows, 2] source and target tokens of each trained task's rows, by task id.
    """

    def __init__(self, order: Order, lengths: Mapping[int, npt.NDArray[np.integer]], global_tokens: int) -> None:
        self._order, self._lengths, self.global_tokens = order, lengths, global_tokens
        self._ahead = 64

    def at(self, position: int) -> Step:
        """The step whose first example is at `position`: as many as fit into global_tokens, at least one."""
        while True:
            examples = self._order.examples(position, position + self._ahead)
            lengths = np.empty((self._ahead, 2), dtype=np.int64)
            for task in self._order.task_ids:
                chosen = examples.task_ids == task
                lengths[chosen] = self._lengths[int(task)][examples.rows[chosen]]
            total = np.cumsum(lengths.sum(axis=1))
            if total[-1] > self.global_tokens:
                break
            self._ahead = 1 + int(self._ahead * max(1.1, 1.1 * self.global_tokens / max(1, total[-1])))
        n = max(1, int(np.searchsorted(total, self.global_tokens, side="right")))
        return Step(position, position + n, examples.task_ids[:n], examples.rows[:n], lengths[:n])


def deal(tokens: IntArray, world_size: int, micro_tokens: int, global_tokens: int) -> list[list[IntArray]]:
    """Micro-batches of one step: `deal(...)[rank][accum_step]` are indices into the step's examples, ascending.

    tokens: [n] tokens of the step's examples, each at most micro_tokens. The number of accumulation steps is the
    smallest that holds global_tokens, or one more where the examples do not pack that tightly; it is the same on all
    ranks. Micro-batches differ by less than one example's tokens (longest-processing-time rule; Graham, 1969).
    A micro-batch may be empty when there are fewer examples than micro-batches.
    """
    grad_accum_steps = accumulation(world_size, micro_tokens, global_tokens)
    while True:
        bins = _longest_first(tokens, world_size * grad_accum_steps)
        if max(int(tokens[chosen].sum()) for chosen in bins) <= micro_tokens:
            return [bins[rank::world_size] for rank in range(world_size)]
        grad_accum_steps += 1


def accumulation(world_size: int, micro_tokens: int, global_tokens: int) -> int:
    """Smallest grad_accum_steps with world_size * grad_accum_steps * micro_tokens >= global_tokens."""
    return -(-global_tokens // (world_size * micro_tokens))


def _longest_first(tokens: IntArray, bins: int) -> list[IntArray]:
    """Examples longest first, each into the emptiest bin; ties by index."""
    filled: list[list[int]] = [[] for _ in range(bins)]
    heap = [(0, b) for b in range(bins)]
    for i in np.argsort(-tokens, kind="stable"):
        load, b = heapq.heappop(heap)
        filled[b].append(int(i))
        heapq.heappush(heap, (load + int(tokens[i]), b))
    return [np.array(sorted(chosen), dtype=np.int64) for chosen in filled]
