"""From the order to packed micro-batches: which examples make a step, and which rank computes which. Pure.

An optimizer step takes the next examples of the order up to `global_tokens`, independent of ranks and accumulation, so
every world size sees the same steps. The examples are then dealt, deterministically and balanced by cost, into
`world_size * grad_accum_steps` micro-batches of at most `micro_tokens` tokens. Every rank computes the whole deal from
lengths alone (milliseconds for thousands of ranks) and reads only its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bigchem.base.errors import UserError
from bigchem.config import HEADROOM
from bigchem.data.order.examples import Examples, Order
from bigchem.data.order.mixture import check_end
from bigchem.data.ragged import IntArray

LengthsOf = Callable[[IntArray, IntArray], IntArray]
"""From rows of a task [n] and their epochs [n] to source and target tokens [n, 2], as the model sees them."""

PARTNERS = 64
"""Number of emptiest micro-batches with which an over-full one tries to exchange examples."""
BLOCK = 1 << 18
"""Lengths read at a time when seeking a distant step."""


@dataclass(frozen=True)
class Step:
    """The examples of one optimizer step, on all ranks.

    start, stop: positions in the order. task_ids, rows, epochs: [n]. lengths: [n, 2] source and target tokens.
    """

    start: int
    stop: int
    task_ids: IntArray
    rows: IntArray
    epochs: IntArray
    lengths: IntArray

    @property
    def tokens(self) -> int:
        """Real tokens, source and target."""
        return int(self.lengths.sum())

    @property
    def target_tokens(self) -> int:
        """The divisor of the step's loss."""
        return int(self.lengths[:, 1].sum())


class Steps:
    """Cuts the order into steps. lengths: of each trained task's rows, by task id."""

    def __init__(self, order: Order, lengths: Mapping[int, LengthsOf], global_tokens: int) -> None:
        self.order, self._lengths, self.global_tokens = order, lengths, global_tokens
        self._budget = int(global_tokens * (1 - HEADROOM))
        self._ahead = 64

    def resized(self, global_tokens: int) -> Steps:
        """The same order, cut into steps of another size."""
        return Steps(self.order, self._lengths, global_tokens)

    def at(self, position: int) -> Step:
        """The step whose first example is at `position`: as many as fit, at least one. UserError past the end."""
        while True:
            examples, lengths = self._read(position, self._ahead)
            total = np.cumsum(lengths.sum(axis=1))
            if total[-1] > self._budget or len(total) < self._ahead:
                break
            self._ahead = 1 + int(self._ahead * max(1.1, 1.1 * self._budget / max(1, total[-1])))
        n = max(1, int(np.searchsorted(total, self._budget, side="right")))
        return Step(position, position + n, examples.task_ids[:n], examples.rows[:n], examples.epochs[:n], lengths[:n])

    def position_of(self, step: int, progress: Callable[[int], None] = lambda done: None) -> int:
        """Position of the first example of optimizer step number `step` (from 0); see `blocks`. progress: called now
        and then with the number of steps passed."""
        position = 0
        for done, task_ids, _ in self.blocks(step):
            position += len(task_ids)
            progress(done)
        return position

    def blocks(self, steps: int) -> Iterator[tuple[int, IntArray, IntArray]]:
        """The examples of the first `steps` steps, in blocks of whole steps: (steps passed, task ids [n], lengths
        [n, 2]).

        Where a step ends depends on the lengths of all earlier examples; this reads about three million a second.
        """
        position, done, ahead = 0, 0, self._ahead
        while done < steps:
            count = max(ahead, min(BLOCK, ahead * (steps - done)))
            examples, lengths = self._read(position, count)
            total = np.cumsum(lengths.sum(axis=1))
            cuts = self._cuts(total, steps - done, whole=len(total) < count)
            if not cuts:
                ahead *= 2
                continue
            position, done = position + cuts[-1], done + len(cuts)
            yield done, examples.task_ids[: cuts[-1]], lengths[: cuts[-1]]

    def _cuts(self, total: IntArray, limit: int, whole: bool) -> list[int]:
        """Ends of up to `limit` steps in a block, from its running sum of tokens. whole: nothing follows the block."""
        cuts: list[int] = []
        at, spent = 0, 0
        while len(cuts) < limit and at < len(total):
            end = max(at + 1, int(np.searchsorted(total, spent + self._budget, side="right")))
            if end >= len(total) and not whole:
                break
            cuts.append(end)
            at, spent = end, int(total[end - 1])
        return cuts

    def _read(self, position: int, count: int) -> tuple[Examples, IntArray]:
        check_end(self.order.mixture.end, position, "data.max_epochs")
        examples = self.order.examples(position, position + count)
        lengths = np.empty((len(examples.rows), 2), dtype=np.int64)
        for task in self.order.task_ids.tolist():
            chosen = np.flatnonzero(examples.task_ids == task)
            lengths[chosen] = self._lengths[task](examples.rows[chosen], examples.epochs[chosen])
        return examples, lengths


@dataclass(frozen=True)
class Deal:
    """Which rank computes which of a step's examples.

    micro_batch: [n] each example's micro-batch, rank + world_size * accum_step.
    """

    micro_batch: IntArray
    world_size: int
    grad_accum_steps: int

    def share(self, rank: int) -> list[IntArray]:
        """The rank's micro-batches in order: indices into the step's examples, ascending. Some are empty if there are
        fewer examples than micro-batches."""
        return [
            np.flatnonzero(self.micro_batch == rank + self.world_size * accum) for accum in range(self.grad_accum_steps)
        ]

    def __iter__(self) -> Iterator[tuple[int, int, IntArray]]:
        """(rank, accum_step, indices into the step's examples) of every micro-batch."""
        order = np.argsort(self.micro_batch, kind="stable")
        counts = np.bincount(self.micro_batch, minlength=self.world_size * self.grad_accum_steps)
        for number, chosen in enumerate(np.split(order, np.cumsum(counts)[:-1])):
            yield number % self.world_size, number // self.world_size, chosen


def deal(
    tokens: IntArray,
    world_size: int,
    micro_tokens: int,
    global_tokens: int,
    *,
    cost: IntArray | None = None,
    grad_accum_steps: int | None = None,
) -> Deal:
    """Deals a step's examples into micro-batches of at most micro_tokens tokens.

    tokens: [n] of the step's examples, each at most micro_tokens. cost: [n] what is balanced; None: tokens.
    grad_accum_steps: UserError if so many do not hold the step; None: the smallest number that holds global_tokens, or
    more if the examples do not pack that tightly. All ranks get the same result.
    """
    if len(tokens) and tokens.max() > micro_tokens:
        raise UserError(f"an example of {tokens.max()} tokens in micro-batches of {micro_tokens}", "data.micro_tokens")
    cost = tokens if cost is None else cost
    accum = accumulation(world_size, micro_tokens, global_tokens) if grad_accum_steps is None else grad_accum_steps
    while True:
        micro_batch = _in_rounds(tokens, cost, world_size * accum)
        if _relieve(micro_batch, tokens, cost, world_size * accum, micro_tokens):
            return Deal(micro_batch, world_size, accum)
        if grad_accum_steps is not None:
            raise UserError(
                f"a step of {tokens.sum():,} tokens does not fit into {world_size} x {accum} micro-batches of "
                f"{micro_tokens:,}",
                "grad_accum_steps",
                "take more accumulation steps or ranks, or raise data.micro_tokens",
            )
        accum += 1


def accumulation(world_size: int, micro_tokens: int, global_tokens: int) -> int:
    """Smallest grad_accum_steps with world_size * grad_accum_steps * micro_tokens >= global_tokens."""
    return -(-global_tokens // (world_size * micro_tokens))


def _in_rounds(tokens: IntArray, cost: IntArray, bins: int) -> IntArray:
    """Micro-batch of each example [n]: each round deals examples of similar tokens, one to each bin, the costliest to
    the bin with the least cost so far.

    Costs of bins differ by at most one example's (by induction over rounds); as a round's examples have nearly equal
    tokens, so do the bins. A round is a few sorts of `bins` numbers: 3 ms for 25,000 examples on 1,024 ranks.
    """
    micro_batch = np.empty(len(tokens), dtype=np.int64)
    load = np.zeros(bins, dtype=cost.dtype)
    order = np.argsort(-tokens, kind="stable")
    for start in range(0, len(order), bins):
        dealt = order[start : start + bins]
        dealt = dealt[np.argsort(-cost[dealt], kind="stable")]
        into = np.argsort(load, kind="stable")[: len(dealt)]
        micro_batch[dealt] = into
        load[into] += cost[dealt]
    return micro_batch


def _relieve(micro_batch: IntArray, tokens: IntArray, cost: IntArray, bins: int, micro_tokens: int) -> bool:
    """Exchanges examples between the fullest bin and emptier ones until none holds more than micro_tokens; in place.

    False if no exchange helps. Terminates, since every exchange lowers the fullest bin.
    """
    load = np.bincount(micro_batch, weights=tokens, minlength=bins).astype(np.int64)
    spent = np.bincount(micro_batch, weights=cost, minlength=bins).astype(np.float64)
    while load.max(initial=0) > micro_tokens:
        full = int(np.argmax(load))
        for other in np.argsort(load, kind="stable")[:PARTNERS].tolist():
            if other != full and _exchange(micro_batch, tokens, cost, load, spent, (full, other), micro_tokens):
                break
        else:
            return False
    return True


def _exchange(
    micro_batch: IntArray,
    tokens: IntArray,
    cost: IntArray,
    load: IntArray,
    spent: npt.NDArray[np.float64],
    pair: tuple[int, int],
    micro_tokens: int,
) -> bool:
    """Moves an example from the first bin of the pair to the second, for a shorter one or for none; in place.

    Of the exchanges after which neither bin exceeds micro_tokens, it takes the one that leaves their costs closest;
    otherwise the largest after which the second does not. False if there is none.
    """
    full, other = pair
    excess, room = int(load[full]) - micro_tokens, micro_tokens - int(load[other])
    givers, takers = np.flatnonzero(micro_batch == full), np.flatnonzero(micro_batch == other)
    gap = tokens[givers][:, None] - np.append(tokens[takers], 0)[None, :]  # the last column gives nothing back
    shift = cost[givers][:, None] - np.append(cost[takers], 0)[None, :]
    fits = (gap > 0) & (gap <= room)
    if not fits.any():
        return False
    enough = fits & (gap >= excess)
    if enough.any():
        unevenness = np.where(enough, np.abs(spent[full] - spent[other] - 2.0 * shift), np.inf)
    else:
        unevenness = np.where(fits, -gap, np.inf)
    i, j = divmod(int(np.argmin(unevenness)), unevenness.shape[1])
    micro_batch[givers[i]] = other
    if j < len(takers):
        micro_batch[takers[j]] = full
    load[[full, other]] += np.array([-gap[i, j], gap[i, j]])
    spent[[full, other]] += np.array([-shift[i, j], shift[i, j]])
    return True
