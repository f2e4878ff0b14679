"""Validation during training: losses on a fixed part of another split, sample predictions, early stopping.

Rows and their packed micro-batches depend on the data and the configuration alone; ranks only divide them up. The
micro-batches' sums are added in a fixed order, so any number of ranks gives the same result, bit for bit if each
micro-batch's loss is.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch.distributed as dist

from bigchem.config import RunConfig
from bigchem.data.loader import Loader
from bigchem.data.order.examples import Flat
from bigchem.data.order.steps import Step, deal
from bigchem.data.packing import pack
from bigchem.data.step_plan import Cost
from bigchem.data.storage.shards import Data
from bigchem.train.checkpoint.best import Best, validated_tasks
from bigchem.train.collectives import say
from bigchem.train.engine import Engine
from bigchem.train.samples import Sample, Samples

SEED = 0x5EED
"""Seed for the choice of rows and, in corpora, their noise. Not the run's, so that runs can be compared."""


@dataclass(frozen=True)
class ValidationResult:
    """One validation. loss: the mean over tasks. seconds: how long training paused for it."""

    step: int
    loss: float
    by_task: dict[str, float]
    samples: list[Sample]
    seconds: float


class Validation:
    """Validates every validation.every steps. Construction and calls are collective.

    improved: whether the last call found a new best whose checkpoint should be retained. Call `settle` once it is
    known whether it was published, and before the next validation.
    """

    def __init__(self, config: RunConfig, engine: Engine, data: Data, cost: Cost, best: Best) -> None:
        self._config, self._engine, self.best = config, engine, best
        self._before = best
        self.improved = False
        if config.validation.every:
            self._read(data, cost)

    def _read(self, data: Data, cost: Cost) -> None:
        config = self._config
        tasks = validated_tasks(config, data)
        rank, world_size = dist.get_rank(), dist.get_world_size()
        update = {"mixture": dict.fromkeys(tasks, 1.0), "temperature": None, "max_epochs": 0, "shuffle_window": 0}
        of_split = config.data.model_copy(update=update)
        slots = [data.tasks[name].id for name in self._engine.tasks]
        loader = Loader(data, of_split, SEED, rank, world_size, cost, split=config.validation.split, slots=slots)
        step = slice_of(loader, config.validation.max_rows)
        tokens = step.lengths.sum(axis=1)
        dealt = deal(tokens, 1, config.data.micro_tokens, int(tokens.sum()), cost=cost(step.lengths)).share(0)
        self._number = len(dealt)
        self._share = [loader.read(step, chosen) for chosen in dealt[rank::world_size]]
        while len(self._share) * world_size < self._number:  # ZeRO-3 hangs unless all ranks do as many forwards
            self._share.append(pack([], [], np.zeros(0, dtype=np.int64)))
        self._samples = Samples.of(loader, step, data, config.validation.samples)
        absent = [task for task in config.data.mixture if task not in tasks]
        without = f"; no rows of {', '.join(absent)}" if absent else ""
        every, split = config.validation.every, config.validation.split
        say(f"validation every {every} steps on {len(step.rows):,} rows of split '{split}'{without}")

    @property
    def over(self) -> str | None:
        """Why the run should stop before its last step; None: it should not."""
        best, patience = self.best, self._config.validation.patience
        if not patience or best.since < patience:
            return None
        return (
            f"stopped early: {best.metric} has not improved for {best.since} validations; "
            f"best {best.value:.4f} at step {best.step}"
        )

    def due(self, step: int) -> bool:
        """Whether `after` validates after `step` steps."""
        every = self._config.validation.every
        return bool(every) and (step % every == 0 or step == self._config.train.steps)

    def after(self, step: int) -> ValidationResult | None:
        """Validates if a validation is due after `step` steps."""
        self.improved = False
        if not self.due(step):
            return None
        begun = time.monotonic()
        by_task = self._engine.validate(self._share, self._number).by_task()
        loss = sum(by_task.values()) / len(by_task)
        value = loss if self.best.metric == "loss" else by_task[self.best.metric.removeprefix("loss/")]
        self._before, self.best = self.best, self.best.after(step, value)
        self.improved = self.best.keep and self.best.step == step
        samples = self._samples.predict(self._engine)
        found = ValidationResult(step, loss, by_task, samples, time.monotonic() - begun)
        say(self._summary(found, value))
        return found

    def settle(self, step: int, *, published: bool) -> None:
        """Reverts to the previous best if the best is that of `step`, but its checkpoint was not published."""
        if self.best.keep and self.best.step == step and not published:
            self.best, self.improved = self._before, False

    def _summary(self, found: ValidationResult, value: float) -> str:
        best = self.best
        tasks = "  ".join(f"{task} {loss:.4f}" for task, loss in found.by_task.items())
        new = best.step == found.step
        verdict = "the best so far" if new else f"best {best.value:.4f} at step {best.step}"
        judged = "" if best.metric == "loss" else f" by {best.metric} {value:.4f}"
        head = f"validation after step {found.step}: loss {found.loss:.4f}, {verdict}{judged}"
        return f"{head}  {tasks}  {found.seconds:.1f} s"


def slice_of(loader: Loader, max_rows: int) -> Step:
    """At most max_rows rows of each of the loader's tasks, as one step: the first of a permutation that depends only on
    the task and its number of rows."""
    tasks, rows, lengths = [], [], []
    for task, stored in loader.plan.rows.items():
        numbers = Flat(SEED, task, stored.size).at(np.arange(min(max_rows, stored.size)), epoch=0)
        tasks.append(np.full(len(numbers), task))
        rows.append(numbers)
        lengths.append(stored.lengths(numbers, np.zeros_like(numbers)))
    n = sum(map(len, rows))
    zeros = np.zeros(n, dtype=np.int64)
    return Step(0, n, np.concatenate(tasks), np.concatenate(rows), zeros, np.concatenate(lengths))
