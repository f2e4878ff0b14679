"""A rank's share of every step, read ahead of the training loop.

The plan decides which examples make a step and which of them are this rank's; the loader reads and packs those rows.
Its only state is a position, the number of examples consumed by all ranks together. A worker that fails is therefore
replaced by one that resumes with the step that was due.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import random

import numpy as np

from bigchem.base.errors import StorageError
from bigchem.base.printable import one_line
from bigchem.chemistry.tokens import atom_starts
from bigchem.config import DataConfig
from bigchem.data.order.span_corruption import BoolArray, row_keys
from bigchem.data.order.steps import Step
from bigchem.data.packing import pack, packed
from bigchem.data.ragged import IntArray, row_offsets
from bigchem.data.step_plan import Cost, Plan, keys_of
from bigchem.data.storage.shards import Data, Gathered
from bigchem.data.text.tokenizer import EOS, Tokenizer
from bigchem.model.packed_batch import PackedBatch

PREFETCH = 2
"""Steps queued ahead of training; one more is being prepared."""
RETRY_S = (1.0, 5.0, 15.0, 15.0, 15.0, 15.0)
"""Pauses before a worker that could not read is replaced; after the last the run stops with its error. Up to 50 % is
added so that ranks do not retry all at once. Each is short enough to react to a signal to save in time."""


@dataclass(frozen=True)
class LoadedStep:
    """A step and one rank's packed micro-batches of it.

    chosen: for each micro-batch, the indices of its examples in the step.
    """

    step: Step
    micro_batches: list[PackedBatch]
    chosen: list[IntArray] = field(default_factory=list)


class Loader:
    """Packed steps of one rank, from any split.

    slots: task ids by the numbers in batches; default: the mixture's, ascending.
    """

    def __init__(
        self,
        data: Data,
        config: DataConfig,
        seed: int,
        rank: int,
        world_size: int,
        cost: Cost | None = None,
        *,
        split: str = "train",
        slots: Sequence[int] | None = None,
    ) -> None:
        self.plan = Plan(data, config, seed, cost, split=split)
        self._config, self._seed, self._rank, self._world_size = config, seed, rank, world_size
        self._stored = {number: data.split(split, task.name) for number, task in self.plan.tasks.items()}
        self.slots = sorted(self.plan.tasks) if slots is None else list(slots)
        self._tokenizer = Tokenizer.load(data.tokenizer_dir) if config.spans.atoms else None

    @property
    def names(self) -> list[str]:
        """The tasks' names in the order of `slots`."""
        return [self.plan.tasks[number].name for number in self.slots]

    def load(self, step: Step) -> LoadedStep:
        """Reads and packs this rank's micro-batches of a step."""
        share = self.plan.deal(step, self._world_size).share(self._rank)
        return LoadedStep(step, [self.read(step, chosen) for chosen in share], share)

    def steps(
        self, position: int, finish: Callable[[PackedBatch], PackedBatch] = lambda batch: batch
    ) -> Generator[LoadedStep]:
        """Steps from a position on, prepared by a thread. UserError at the end of the order, if it has one.

        finish: called with each micro-batch, in the thread; its result takes the place.
        Storage failures are logged and retried, see RETRY_S. A failure that persists, and any other error, is raised.
        """
        failures = 0
        while True:
            worker = _Worker(self._produce(position, finish))
            try:
                for loaded in worker.results():
                    position, failures = loaded.step.stop, 0
                    yield loaded
            except (StorageError, OSError) as error:
                if failures == len(RETRY_S):
                    raise
                pause = RETRY_S[failures] * (1 + random() / 2)
                print(
                    f"loader: {one_line(error)}; retrying from example {position} in {pause:.1f} s "
                    f"({failures + 1}/{len(RETRY_S)})",
                    file=sys.stderr,
                    flush=True,
                )
                time.sleep(pause)
                failures += 1
            finally:
                worker.close()

    def keys(self, step: Step, chosen: IntArray | None = None) -> list[str]:
        """Content keys of a step's examples, or of the chosen ones, in order."""
        if chosen is not None:
            parts = (values[chosen] for values in (step.task_ids, step.rows, step.epochs, step.lengths))
            step = Step(step.start, step.stop, *parts)
        return keys_of(step, self.rows(step), self._stored)

    def rows(self, step: Step) -> IntArray:
        """[n] row numbers in the data folder, per task, of a step's examples."""
        return self.plan.stored(step)

    def read(self, step: Step, chosen: IntArray) -> PackedBatch:
        """The chosen examples of a step, packed, task by task. task_ids of the batch: places in `slots`."""
        tasks = step.task_ids[chosen]
        parts = [(task, self._read_task(step, task, chosen[tasks == task])) for task in np.unique(tasks).tolist()]
        if not parts:
            return pack([], [], tasks)
        by_task = np.concatenate([chosen[tasks == task] for task, _ in parts])
        return packed(
            np.concatenate([part.source_ids for _, part in parts]),
            np.concatenate([part.source_lens for _, part in parts]),
            np.concatenate([part.target_ids for _, part in parts]),
            np.concatenate([part.target_lens for _, part in parts]),
            np.repeat([self.slots.index(task) for task, _ in parts], [len(part.source_lens) for _, part in parts]),
            by_task,
        )

    def _read_task(self, step: Step, task: int, chosen: IntArray) -> Gathered:
        training = self.plan.rows[task]
        rows = training.stored(step.rows[chosen])
        found = self._stored[task].gather(rows, training.prompts(rows, step.epochs[chosen]))
        if self._config.over_caps == "cut":
            source_cap, target_cap = training.longest.tolist()
            found = Gathered(
                *_cut(found.source_ids, found.source_lens, source_cap),
                *_cut(found.target_ids, found.target_lens, target_cap),
            )
        if self.plan.spans is None or not self.plan.tasks[task].spans:
            return found
        keys = row_keys(self._seed, task, rows, step.epochs[chosen])
        atoms = self._atoms(task, rows, found.source_lens)
        lengths = step.lengths[chosen]
        source_ids, target_ids = self.plan.spans.corrupt(found.source_ids, found.source_lens, keys, atoms)
        return Gathered(source_ids, lengths[:, 0], target_ids, lengths[:, 1])

    def _atoms(self, task: int, rows: IntArray, lens: IntArray) -> list[BoolArray] | None:
        """For each row, whether each token but the end token starts an atom; None if spans ignore atoms."""
        if self._tokenizer is None or self.plan.tasks[task].source_domain != "chemistry":
            return None
        texts = [self._stored[task].text(row)[1] for row in rows.tolist()]
        _, starts = self._tokenizer.encode_with_starts(texts)
        return [
            np.isin(at[: length - 1], atom_starts(text))
            for text, at, length in zip(texts, starts, lens.tolist(), strict=True)
        ]

    def _produce(self, position: int, finish: Callable[[PackedBatch], PackedBatch]) -> Iterator[LoadedStep]:
        while True:
            step = self.plan.steps.at(position)
            loaded = self.load(step)
            yield replace(loaded, micro_batches=[finish(batch) for batch in loaded.micro_batches])
            position = step.stop


class _Worker:
    """A thread that takes from an iterator, PREFETCH items ahead."""

    def __init__(self, items: Iterator[LoadedStep]) -> None:
        self._items = items
        self._ready: queue.Queue[LoadedStep | BaseException] = queue.Queue(PREFETCH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bigchem-loader", daemon=True)
        self._thread.start()

    def results(self) -> Iterator[LoadedStep]:
        """The items; the iterator's error is raised here."""
        while True:
            item = self._ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # handed to the consumer, who raises it
            self._put(error)

    def _put(self, item: LoadedStep | BaseException) -> bool:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._ready.put(item, timeout=0.2)
                return True
        return False


def _cut(ids: np.ndarray, lens: IntArray, cap: int) -> tuple[np.ndarray, IntArray]:
    """Flat rows of at most `cap` tokens; rows that are cut still end with the end token."""
    if not len(lens) or lens.max() <= cap:
        return ids, lens
    place = row_offsets(lens)
    cut = np.where(place == cap - 1, EOS, ids)  # the last token of a row of `cap` tokens is the end token already
    return cut[place < cap], np.minimum(lens, cap)
