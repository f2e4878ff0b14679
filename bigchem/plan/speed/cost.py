"""What a whole run takes: hours, GPU-hours, energy. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bigchem.data.order.steps import HEADROOM
from bigchem.plan.speed.step_time import Cluster, StepTime


@dataclass(frozen=True)
class Cost:
    """Of a run of so many optimizer steps and real tokens. kwh: an upper estimate for the GPUs alone; None where the
    power of a GPU is not known."""

    steps: int
    tokens: int
    hours: float
    gpu_hours: float
    kwh: float | None


def steps_for(tokens: int, global_tokens: int) -> int:
    """Optimizer steps that train on so many real tokens."""
    return math.ceil(tokens / (global_tokens * (1 - HEADROOM)))


def cost(time: StepTime, cluster: Cluster, steps: int) -> Cost:
    """Of `steps` steps. Energy is the GPUs' TDP at every moment, which none reaches in training; hosts, network and
    cooling come on top."""
    hours = steps * time.total / 3600
    gpu_hours = hours * cluster.world_size
    watts = cluster.gpu.watts
    kwh = None if watts is None else gpu_hours * watts / 1000
    return Cost(steps, round(steps * time.total * time.tokens_per_s), hours, gpu_hours, kwh)


def summary(found: Cost, watts: float | None) -> str:
    """One line."""
    line = f"{found.steps:,} steps, {found.tokens:,} tokens: {found.hours:,.3g} h, {found.gpu_hours:,.3g} GPU-hours"
    if found.kwh is None or watts is None:
        return f"{line}; energy: the GPU's power is not known"
    return f"{line}; energy: up to {found.kwh:,.3g} kWh at a TDP of {watts:,.0f} W (GPUs alone, an upper estimate)"
