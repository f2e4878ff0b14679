"""Budgets of runs of fewer tasks, matched with the run of all tasks by counting along the plan of the data."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigchem.base.errors import UserError
from bigchem.config import Alone, RunConfig
from bigchem.data.order.steps import Steps
from bigchem.data.ragged import IntArray
from bigchem.data.step_plan import Cost, Plan, flops_cost, open_data
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer

SAMPLE = 500
"""Steps along which examples or FLOPs are counted, at most."""

Count = Callable[[IntArray, IntArray], float]
"""From task ids [n] and lengths [n, 2] of examples to what is matched."""


@dataclass
class Matching:
    """Matches runs of one sweep with its run of all tasks. Runs that differ in fields that do not matter are matched
    once."""

    alone: Alone
    where: str
    _known: dict[str, int] = field(default_factory=dict)

    def overrides(self, run: RunConfig, shared: RunConfig) -> dict[str, Any]:
        """Dotted fields that give a run of one task, or of some, the shared run's budget.

        `tokens`: the shared run's steps and tokens of a step. `examples`, `compute`: its steps, and as many tokens a
        step as hold the examples of its tasks that a shared step holds, or as cost its FLOPs. The number of steps
        is kept, and with it the learning rate at each of them: with fewer, larger steps, the same learning rates would
        move the weights less often, and a gain could be that of more updates. With `examples`, a step then averages
        its tasks' gradient over as many examples as together, so that only the other tasks' data differ.

        UserError if the data are not there, or if a step could not hold the longest example.
        """
        found: dict[str, Any] = {"train.steps": shared.train.steps}
        if self.alone == "tokens":
            return {**found, "data.global_tokens": shared.data.global_tokens}
        relevant = [one.data.model_dump(mode="json") for one in (run, shared)]
        model = shared.model.model_dump(mode="json") if self.alone == "compute" else None
        key = json.dumps([relevant, model, min(SAMPLE, shared.train.steps)])
        if key not in self._known:
            self._known[key] = self._global_tokens(run, shared)
        tokens = self._known[key]
        longest = run.data.max_source_tokens + run.data.max_target_tokens
        if tokens < longest:
            what = f"matched by {self.alone}: steps of {tokens:,} tokens cannot hold the longest example, {longest:,}"
            hint = "raise data.global_tokens, or lower data.max_source_tokens and data.max_target_tokens"
            raise UserError(what, f"{self.where}: {run.name}", hint)
        return {**found, "data.global_tokens": tokens, "data.micro_tokens": min(run.data.micro_tokens, tokens)}

    def _global_tokens(self, run: RunConfig, shared: RunConfig) -> int:
        steps = min(SAMPLE, shared.train.steps)
        try:
            data = open_data(shared.data)
            together, own = (Plan(data, one.data, shared.seed) for one in (shared, run))
        except (UserError, OSError) as error:
            why = error.what if isinstance(error, UserError) else error.strerror
            what = f"matching by {self.alone} is computed from the data in {shared.data.path}: {why}"
            raise UserError(what, self.where, "build them first, or set each mixture's budget instead") from None
        count = _operations(self._cost(shared, data)) if self.alone == "compute" else _examples(own.tasks)
        wanted = _counted(together.steps, steps, count)
        return nearest_tokens(lambda tokens: _counted(own.steps.resized(tokens), steps, count), wanted)

    def _cost(self, shared: RunConfig, data: Data) -> Cost:
        return flops_cost(shared.model, Tokenizer.load(data.tokenizer_dir).vocab_size)


def nearest_tokens(count: Callable[[int], float], wanted: float) -> int:
    """The number of tokens whose count is nearest to `wanted`. count: does not fall."""
    high = 2
    while count(high) < wanted:
        high *= 2
    low = high // 2  # count(low) < wanted <= count(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < wanted else (low, middle)
    return low if wanted - count(low) < count(high) - wanted else high


def _counted(steps: Steps, number: int, count: Count) -> float:
    return sum(count(task_ids, lengths) for _, task_ids, lengths in steps.blocks(number))


def _examples(tasks: Iterable[int]) -> Count:
    found = list(tasks)
    return lambda task_ids, lengths: float(np.isin(task_ids, found).sum())


def _operations(cost: Cost) -> Count:
    return lambda task_ids, lengths: float(cost(lengths).sum())
