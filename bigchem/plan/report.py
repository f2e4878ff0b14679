"""The report of `bigchem plan`: rows, the recommended one, and a run's cost. Needs no torch."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.base.progress import amount, tables
from bigchem.config import steps_for
from bigchem.plan import from_config, table
from bigchem.plan.choices import Choice, Room, choices, reason, recommended
from bigchem.plan.from_config import Planned
from bigchem.plan.memory.peak import CONTEXT, FRAGMENTATION
from bigchem.plan.speed import cost, hardware
from bigchem.plan.speed.step_time import Assumptions, Cluster

FULL = 0.95
"""Fill at which a step's micro-batches count as full."""
WAITING = 0.1
"""Fraction of a step spent waiting for other GPUs above which more accumulation is mentioned."""
MAX_MICRO_BATCHES = 64
"""Maximum micro-batches per step that are mentioned."""


@dataclass(frozen=True)
class Suggestion:
    """global_tokens, and micro-batches that each GPU accumulates per step. why: one sentence."""

    global_tokens: int
    micro_batches: int
    why: str


def suggestion(choice: Choice, global_tokens: int) -> Suggestion:
    """A suggestion for a plan's row and the run's global_tokens.

    The run's value is changed only to fill its micro-batches: step size decides how a model learns, which memory
    arithmetic cannot judge. If GPUs wait for each other, a larger one is mentioned, not suggested.
    """
    round_tokens = choice.setup.world_size * choice.micro_tokens
    now = choice.time.micro_batches
    full = global_tokens / (round_tokens * now)
    count = now if full >= FULL else max(1, round(global_tokens / round_tokens))
    tokens = global_tokens if full >= FULL else count * round_tokens
    if full >= FULL:
        why = f"the run's value; its micro-batches are {100 * full:.0f} % full"
    else:
        why = f"{global_tokens:,} would leave micro-batches {100 * full:.0f} % full"
    return Suggestion(tokens, count, f"{why}; {_waiting(choice, round_tokens, global_tokens)}")


def suggestion_summary(found: Suggestion) -> str:
    """One line."""
    plural = "" if found.micro_batches == 1 else "es"
    return (
        f"data.global_tokens={found.global_tokens}, {found.micro_batches} micro-batch{plural} per step and GPU: "
        f"{found.why}"
    )


def _waiting(choice: Choice, round_tokens: int, global_tokens: int) -> str:
    """A clause on exposed communication, and how far accumulation would amortise it. Only stages 0 and 1 send gradients
    once per step, whatever its number of micro-batches."""
    time = choice.time
    share = time.exposed / time.total
    waiting = f"GPUs wait for each other {100 * share:.0f} % of a step"
    if share <= WAITING or choice.setup.stage > 1:
        return waiting
    of_one = time.compute * round_tokens / global_tokens  # of a full micro-batch on every GPU
    count = math.ceil((time.exposed * (1 - WAITING) / WAITING - time.optimizer) / of_one)
    if count > MAX_MICRO_BATCHES:
        return waiting
    return (
        f"{waiting}, and {100 * WAITING:.0f} % with {count} micro-batches: global_tokens = {count * round_tokens:,}, "
        "if the model learns as well from larger steps"
    )


ON_TOP = f"{amount(CONTEXT)} of context and NCCL, {100 * FRAGMENTATION:.0f} % of fragmentation"


@dataclass(frozen=True)
class Report:
    """A plan of a run of `steps` optimizer steps on a cluster. found: all rows. best: the recommended one, if any fits.
    gpu: the cluster's GPU as the user named it."""

    planned: Planned
    cluster: Cluster
    room: Room
    assumed: Assumptions
    steps: int
    found: list[Choice]
    best: Choice | None
    gpu: str

    @property
    def why(self) -> str:
        """Why a row is recommended, or the nearest row if nothing fits."""
        return reason(self.best, self.found, self.room)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows as plain data."""
        return [
            table.row(one, cost.cost(one.time, self.cluster, self.steps), recommended=one is self.best)
            for one in self.found
        ]

    @property
    def suggested(self) -> Suggestion | None:
        """Suggested global_tokens for the recommended row."""
        return None if self.best is None else suggestion(self.best, self.planned.work.global_tokens)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts common to all rows."""
        return from_config.facts(self.planned, self.best or self.found[0])

    def as_json(self) -> dict[str, Any]:
        """The report as plain data."""
        cluster, suggested = self.cluster, self.suggested
        return {
            **self.facts,
            "gpus": cluster.gpus,
            "nodes": cluster.nodes,
            "gpu": cluster.gpu.device_name,
            "gpu_bytes": self.room.gpu,
            "steps": self.steps,
            "assumptions": {"speed": self.assumed.summary(), "memory": ON_TOP},
            "rows": self.rows,
            "recommended": self.why,
            "suggested": None if suggested is None else asdict(suggested),
        }

    def write(self, path: Path) -> str:
        """Writes the recommended row's DeepSpeed configuration; returns the fields to set in the run. UserError if
        nothing fits."""
        if self.best is None:
            raise UserError(self.why, "--write", "more GPUs, or a smaller model")
        return from_config.write(self.best, self.planned, path)

    def show(self, *, as_json: bool) -> None:
        """Prints the table and the lines below it, or JSON."""
        if as_json:
            print(json.dumps(self.as_json(), indent=1))
            return
        tables().print(table.table(self.rows))
        facts, cluster, kind = self.facts, self.cluster, self.cluster.gpu
        for name, why in facts["left_out"].items():
            print(f"excluded: {name}: {why}")
        for note in facts["notes"]:
            print(f"{self.planned.config.train.ds_config}: {note}")
        print(f"{'recommended: ' if self.best else ''}{self.why}")
        if self.best is not None and self.suggested is not None:
            print(f"suggested: {suggestion_summary(self.suggested)}")
            print(f"the run: {cost.summary(cost.cost(self.best.time, cluster, self.steps), kind.watts)}")
        print(from_config.summary(facts))
        nodes = f"{cluster.nodes} node{'s' if cluster.nodes > 1 else ''}"
        print(f"{cluster.gpus} x {kind.device_name} per node, {nodes}; GPU: with {ON_TOP} (assumed)")
        print(f"tokens/s: an estimate, not measured: {self.assumed.summary()}")
        if abs(self.room.gpu - kind.memory) > 0.1 * kind.memory:
            known = " | ".join(hardware.GPUS)
            print(f"speeds are those of {self.gpu}, which has {amount(kind.memory)}: --gpu {known}")


def report(
    planned: Planned,
    sizes: Sequence[int],
    cluster: Cluster,
    room: Room,
    assumed: Assumptions,
    steps: int,
    gpu: str,
) -> Report:
    """Evaluates every combination. UserError if the GPU cannot compute in the run's precision."""
    precision = planned.config.train.precision
    if not cluster.gpu.peak(precision):
        what = f"{gpu} has no known peak in {precision}"
        raise UserError(what, "train.precision", "--set train.precision=fp32")
    found = choices(planned.work, planned.tables, sizes, cluster, room, assumed)
    return Report(planned, cluster, room, assumed, steps, found, recommended(found, room), gpu)


def steps_of(planned: Planned, steps: int | None, tokens: int | None) -> int:
    """Optimizer steps of the run: as given, or enough for the given real tokens; default: train.steps."""
    if steps is not None and tokens is not None:
        raise UserError("the length of the run is given twice", "--steps, --tokens", "give one or the other")
    if tokens is not None:
        return steps_for(tokens, planned.work.global_tokens)
    return steps or planned.config.train.steps
