"""Every combination of settings on given GPUs: whether it fits, why, how fast, and the recommended one. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bigchem.base.progress import amount
from bigchem.model.presets import Shape
from bigchem.plan.memory.peak import CONTEXT, Memory, memory
from bigchem.plan.memory.setup import MemorySetup
from bigchem.plan.memory.worst_case import filled
from bigchem.plan.speed.step_time import Assumptions, Cluster, StepTime, step_time

Verdict = Literal["ok", "tight", "no"]
NEAR = 0.9
"""A simpler choice with at least this fraction of the highest speed is preferred: the estimate's error is larger."""
SPARE = 0.1
"""Fraction of a GPU that the recommended row leaves free, if any row does: the peak on a GPU has not been measured, and
should be within this of the plan's."""


@dataclass(frozen=True)
class Workload:
    """The model and data to train. longest: [2] tokens of the longest source and target. typical: [n, 2] lengths
    representative of a step. setup: precision, optimizer etc.; its stage and world size are replaced."""

    shape: Shape
    setup: MemorySetup
    longest: NDArray[np.int64]
    typical: NDArray[np.int64]
    global_tokens: int


@dataclass(frozen=True)
class Room:
    """Bytes of a GPU, and of a node's host memory if known."""

    gpu: float
    host: float | None = None


@dataclass(frozen=True)
class Choice:
    """One row of the plan. host: bytes of a node's host memory. why: the reason for the verdict."""

    ds_config: str
    micro_tokens: int
    setup: MemorySetup
    memory: Memory
    time: StepTime
    verdict: Verdict
    why: str
    host: int

    @property
    def needed(self) -> int:
        """Bytes of a GPU, with the assumed context and fragmentation."""
        return self.memory.footprint

    @property
    def simplicity(self) -> tuple[bool, bool, int, int]:
        """A sort key: smaller is simpler."""
        return self.setup.offloaded("optimizer"), self.setup.checkpoint_activations, self.setup.stage, self.needed


def fits(planned: Memory, room: float) -> Verdict:
    """Whether a rank fits in `room` bytes of a GPU. tight: only without fragmentation."""
    if planned.footprint <= room:
        return "ok"
    return "tight" if planned.total + CONTEXT <= room else "no"


def choices(
    work: Workload,
    tables: Mapping[str, Mapping[str, object]],
    micro_tokens: Iterable[int],
    cluster: Cluster,
    room: Room,
    assumed: Assumptions,
) -> list[Choice]:
    """Every combination. tables: completed DeepSpeed configurations (bigchem/ds_config) by name."""
    found = []
    for name, table in tables.items():
        for checkpointed in (False, True):
            setup = replace(work.setup, world_size=cluster.world_size, checkpoint_activations=checkpointed)
            setup = setup.with_ds_config(table)
            found += [_choice(name, work, setup, tokens, cluster, room, assumed) for tokens in micro_tokens]
    return found


def recommended(found: Iterable[Choice], room: Room) -> Choice | None:
    """The fastest choice that leaves SPARE of the GPU free, or a simpler one that is about as fast; None if nothing
    fits.

    Simpler: no offload, no checkpointing, the lower stage, the smaller micro-batch, in this order.
    """
    candidates, _ = _candidates(found, room)
    if not candidates:
        return None
    fastest = max(choice.time.tokens_per_s for choice in candidates)
    return min((c for c in candidates if c.time.tokens_per_s >= NEAR * fastest), key=lambda choice: choice.simplicity)


def _candidates(found: Iterable[Choice], room: Room) -> tuple[list[Choice], str]:
    """The choices to recommend from, and a description of them."""
    fitting = [choice for choice in found if choice.verdict == "ok"]
    roomy = [choice for choice in fitting if choice.needed <= (1 - SPARE) * room.gpu]
    return (roomy, f"leave {100 * SPARE:.0f} % free") if roomy else (fitting, "fit")


def reason(chosen: Choice | None, found: list[Choice], room: Room) -> str:
    """Why a row is recommended, or the nearest row if nothing fits."""
    if chosen is None:
        nearest = min(found, key=lambda choice: choice.needed)
        return f"nothing fits; the smallest is {describe(nearest)}: {nearest.why}"
    candidates, which = _candidates(found, room)
    fastest = max(candidates, key=lambda choice: choice.time.tokens_per_s)
    size = f"{describe(chosen)}: {amount(chosen.needed)} of {amount(room.gpu)}, "
    if chosen is fastest:
        return size + f"the fastest of the {len(candidates)} that {which}"
    near = f"within {100 * (1 - NEAR):.0f} % of the fastest of the {len(candidates)} that {which}"
    return f"{size}{near} ({describe(fastest)}), and simpler"


def describe(choice: Choice) -> str:
    """A description of a choice."""
    checkpointing = " with" if choice.setup.checkpoint_activations else " without"
    return f"{choice.ds_config}, micro-batches of {choice.micro_tokens:,} tokens,{checkpointing} checkpointing"


def _choice(
    name: str, work: Workload, setup: MemorySetup, micro_tokens: int, cluster: Cluster, room: Room, assumed: Assumptions
) -> Choice:
    lengths = filled(work.longest, micro_tokens)
    planned = memory(work.shape, setup, lengths[:, 0], lengths[:, 1])
    time = step_time(work.shape, setup, cluster, work.typical, micro_tokens, work.global_tokens, assumed)
    verdict, host = fits(planned, room.gpu), cluster.gpus * max(planned.on_host, planned.building)
    why = _why(planned, verdict, room)
    if room.host is not None and host > room.host:
        cause = " to build the model" if planned.building > planned.on_host else ""
        verdict, why = "no", f"host memory of a node{cause}: {amount(host - room.host)} over"
    return Choice(name, micro_tokens, setup, planned, time, verdict, why, host)


def _why(planned: Memory, verdict: Verdict, room: Room) -> str:
    largest = ", ".join(f"{name} {amount(size)}" for name, size in list(planned.items.items())[:3])
    if verdict == "ok":
        return largest
    over = f"{amount(planned.footprint - room.gpu)} over"
    return f"{over}{' with fragmentation' if verdict == 'tight' else ''}: {largest}"
