"""The content of a run's steps in advance, computed from lengths alone, without torch."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from bigchem.base.errors import UserError
from bigchem.base.printable import markup
from bigchem.base.progress import Progress
from bigchem.config import RunConfig
from bigchem.data.order.mixture import check_end
from bigchem.data.order.steps import Step
from bigchem.data.step_plan import Plan, flops_cost, keys_of, open_data
from bigchem.data.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch of one rank. step and micro count from 0. keys: of its examples."""

    step: int
    rank: int
    micro: int
    task_counts: dict[str, int]
    source_tokens: int
    target_tokens: int
    keys: list[str]


@dataclass(frozen=True)
class StepPreview:
    """One step. fill: share of the micro-batches' token capacity in use. imbalance: cost of the costliest micro-batch
    over the mean."""

    number: int
    step: Step
    micro_batches: list[MicroBatch]
    grad_accum_steps: int
    fill: float
    imbalance: float


class Preview:
    """The steps of a run on `world_size` ranks."""

    def __init__(self, config: RunConfig, world_size: int, grad_accum_steps: int | None) -> None:
        self.data = open_data(config.data)
        self.config, self._world_size, self._grad_accum_steps = config, world_size, grad_accum_steps
        self._cost = flops_cost(config.model, Tokenizer.load(self.data.tokenizer_dir).vocab_size)
        self.plan = Plan(self.data, config.data, config.seed, self._cost)
        self._stored = {number: self.data.split("train", task.name) for number, task in self.plan.tasks.items()}

    def steps(self, start_step: int, steps: int, progress: Progress, *, keys: bool) -> Iterator[StepPreview]:
        """`steps` steps from start_step on; UserError past the run's last. keys: whether to look up examples' keys."""
        if start_step + steps > self.config.train.steps:
            raise UserError(
                f"steps {start_step} to {start_step + steps - 1}, but the run has {self.config.train.steps}",
                "--start-step",
                "steps count from 0; ask for earlier ones, or --set train.steps=...",
            )
        with progress.bar("seeking the first step", start_step or None) as bar:
            position = self.plan.steps.position_of(start_step, lambda done: bar.advance(done - bar.done))
        check_end(self.plan.mixture.end, position, "data.max_epochs")
        with progress.bar("planning steps", steps) as bar:
            for number in range(start_step, start_step + steps):
                if position == self.plan.mixture.end:
                    progress.say(f"the data ends before step {number}: data.max_epochs = {self.config.data.max_epochs}")
                    return
                step = self.plan.steps.at(position)
                yield self._preview(number, step, keys)
                position = step.stop
                bar.advance()

    def _preview(self, number: int, step: Step, keys: bool) -> StepPreview:
        dealt = self.plan.deal(step, self._world_size, self._grad_accum_steps)
        costs = self._cost(step.lengths)
        named = np.array(keys_of(step, self.plan.stored(step), self._stored)) if keys else None
        found, spent = [], []
        for rank, micro, chosen in dealt:
            counts = Counter(step.task_ids[chosen].tolist())
            source_tokens, target_tokens = step.lengths[chosen].sum(axis=0).tolist()
            found.append(
                MicroBatch(
                    step=number,
                    rank=rank,
                    micro=micro,
                    task_counts={task.name: counts[number] for number, task in self.plan.tasks.items()},
                    source_tokens=source_tokens,
                    target_tokens=target_tokens,
                    keys=[] if named is None else named[chosen].tolist(),
                )
            )
            spent.append(int(costs[chosen].sum()))
        found.sort(key=lambda m: (m.rank, m.micro))
        fill = step.tokens / (len(found) * self.config.data.micro_tokens)
        return StepPreview(number, step, found, dealt.grad_accum_steps, fill, max(spent) * len(spent) / sum(spent))


def table(previews: list[StepPreview], plan: Plan, world_size: int) -> Table:
    """A row per step, then the totals, with the requested mixture next to the realised one."""
    names = [task.name for task in plan.tasks.values()]
    shown = Table(title=f"on {world_size} rank{'s' if world_size > 1 else ''}", caption=markup(plan.describe()))
    for column in ("step", "examples", "first", "accum", "tokens", "target", "fill", "imbalance", *names):
        shown.add_column(column, justify="right")
    totals: Counter[int] = Counter()
    for preview in previews:
        step = preview.step
        counts = Counter(step.task_ids.tolist())
        totals.update(counts)
        n = len(step.rows)
        shown.add_row(
            str(preview.number),
            f"{n:,}",
            f"{step.start:,}",
            str(preview.grad_accum_steps),
            f"{step.tokens:,}",
            f"{step.target_tokens:,}",
            f"{preview.fill:.2%}",
            f"{preview.imbalance - 1:.2%}",
            *(f"{counts[task]} ({counts[task] / n:.2%})" for task in plan.rows),
        )
    shown.add_section()
    realised = [f"{totals[task]} ({totals[task] / totals.total():.3%})" for task in plan.rows]
    shown.add_row("all", f"{totals.total():,}", *[""] * 6, *realised)
    shown.add_row("requested", *[""] * 7, *(f"{100 * plan.mixture.requested[task]:.4g}%" for task in plan.rows))
    shown.add_row("schedule", *[""] * 7, *(f"{100 * plan.mixture.shares[task]:.4g}%" for task in plan.rows))
    return shown
