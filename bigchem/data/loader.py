"""A rank's share of every step, read ahead of the training loop.

The loader nests three things: `Order` says which example comes when, `Steps` cuts the order into optimizer steps,
`deal` says which rank computes which of a step's examples. The loader reads its rank's rows and packs them. Its whole
state is `position`, the number of examples consumed by all ranks together.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from bigchem.config import DataConfig
from bigchem.data.batches import Step, Steps, deal
from bigchem.data.order import IntArray, Order
from bigchem.data.shards import Data, TaskRows
from bigchem.errors import UserError
from bigchem.model.t5 import PackedBatch
from bigchem.tasks import TRAINABLE_NAMES, task_id

PREFETCH = 2
"""Steps prepared ahead."""


@dataclass(frozen=True)
class LoadedStep:
    """One step as a rank sees it: the whole step's plan, and this rank's packed micro-batches."""

    plan: Step
    micro_batches: list[PackedBatch]


class Loader:
    """Packed steps of one rank. Rows longer than the caps are left out of the order altogether."""

    def __init__(self, data: Data, config: DataConfig, seed: int, rank: int, world_size: int) -> None:
        self._config, self._rank, self._world_size = config, rank, world_size
        self._rows: dict[int, TaskRows] = {}
        self._kept: dict[int, IntArray] = {}
        lengths = {}
        for name in config.mixture:
            task = task_id(name)
            rows = data.split("train", name)
            caps = np.array([config.max_source_tokens, config.max_target_tokens])
            kept = np.flatnonzero((rows.lengths <= caps).all(axis=1))
            if not len(kept):
                raise UserError(
                    f"every row of task '{name}' is longer than max_source_tokens or max_target_tokens",
                    str(data.path),
                    "raise the caps in [data]",
                )
            self._rows[task], self._kept[task] = rows, kept
            lengths[task] = rows.lengths[kept]
        order = Order(
            seed, {t: len(k) for t, k in self._kept.items()}, {task_id(n): w for n, w in config.mixture.items()}
        )
        self._steps = Steps(order, lengths, config.global_tokens)
        self.left_out = {TRAINABLE_NAMES[t]: len(self._rows[t]) - len(k) for t, k in self._kept.items()}

    def plan(self, position: int) -> Step:
        """The step at a position, without reading its rows."""
        return self._steps.at(position)

    def load(self, plan: Step) -> LoadedStep:
        """Reads and packs this rank's micro-batches of a step."""
        config = self._config
        dealt = deal(plan.lengths.sum(axis=1), self._world_size, config.micro_tokens, config.global_tokens)
        return LoadedStep(plan, [self.read(plan, chosen) for chosen in dealt[self._rank]])

    def steps(self, position: int) -> Generator[LoadedStep]:
        """Steps from a position on, without end, prepared by a thread. Errors of the thread are raised here."""
        ready: queue.Queue[LoadedStep | BaseException] = queue.Queue(PREFETCH)
        stop = threading.Event()

        def put(item: LoadedStep | BaseException) -> None:
            while not stop.is_set():
                with suppress(queue.Full):
                    ready.put(item, timeout=0.2)
                    break

        def produce() -> None:
            at = position
            try:
                while not stop.is_set():
                    plan = self.plan(at)
                    put(self.load(plan))
                    at = plan.stop
            except BaseException as error:  # handed to the consumer, who raises it
                put(error)

        thread = threading.Thread(target=produce, name="bigchem-loader", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join(timeout=5)

    def keys(self, plan: Step) -> list[str]:
        """Content keys of a step's examples, in order."""
        return [
            self._rows[t].text(int(self._kept[t][r]))[0]
            for t, r in zip(plan.task_ids.tolist(), plan.rows.tolist(), strict=True)
        ]

    def read(self, plan: Step, chosen: IntArray) -> PackedBatch:
        """The chosen examples of a step, packed."""
        pairs = [
            self._rows[t].tokens(int(self._kept[t][r]))
            for t, r in zip(plan.task_ids[chosen].tolist(), plan.rows[chosen].tolist(), strict=True)
        ]
        return pack([s for s, _ in pairs], [t for _, t in pairs], plan.task_ids[chosen])


def pack(sources: list[np.ndarray], targets: list[np.ndarray], task_ids: IntArray) -> PackedBatch:
    """Token ids of B examples as one packed batch. B = 0 gives one example of length 1 whose label is ignored, so that
    a rank without work still takes part in every collective operation."""
    if not sources:
        sources, targets, task_ids = [np.zeros(1)], [np.full(1, -100)], np.zeros(1, dtype=np.int64)
    source_lens, target_lens = [len(s) for s in sources], [len(t) for t in targets]
    return PackedBatch(
        source_ids=torch.from_numpy(np.concatenate(sources).astype(np.int64)),
        target_ids=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        source_cu_seqlens=_cu_seqlens(source_lens),
        target_cu_seqlens=_cu_seqlens(target_lens),
        max_source_len=max(source_lens),
        max_target_len=max(target_lens),
        task_ids=torch.from_numpy(np.asarray(task_ids, dtype=np.int64)),
    )


def _cu_seqlens(lengths: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
