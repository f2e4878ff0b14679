"""Cost of a whole run: hours, GPU-hours, energy. Pure."""

from dataclasses import dataclass

from bigchem.plan.speed.step_time import Cluster, StepTime


@dataclass(frozen=True)
class Cost:
    """Cost of a run of `steps` optimizer steps and `tokens` real tokens. kwh: an upper estimate for the GPUs alone;
    None if the GPU's power is unknown."""

    steps: int
    tokens: int
    hours: float
    gpu_hours: float
    kwh: float | None


def cost(time: StepTime, cluster: Cluster, steps: int) -> Cost:
    """Cost of `steps` steps. Energy assumes the GPUs' TDP throughout, which training does not reach, and excludes
    hosts, network and cooling."""
    hours = steps * time.total / 3600
    gpu_hours = hours * cluster.world_size
    watts = cluster.gpu.watts
    kwh = None if watts is None else gpu_hours * watts / 1000
    return Cost(steps, round(steps * time.total * time.tokens_per_s), hours, gpu_hours, kwh)


def summary(found: Cost, watts: float | None) -> str:
    """One line."""
    line = f"{found.steps:,} steps, {found.tokens:,} tokens: {found.hours:,.3g} h, {found.gpu_hours:,.3g} GPU-hours"
    if found.kwh is None or watts is None:
        return f"{line}; energy: the GPU's power is unknown"
    return f"{line}; energy: up to {found.kwh:,.3g} kWh at a TDP of {watts:,.0f} W (GPUs alone, an upper estimate)"
