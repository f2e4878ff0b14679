"""Learning rate over steps. Pure."""

import math

from bigchem.config import ScheduleConfig


def multiplier(config: ScheduleConfig, step: int, steps: int) -> float:
    """Fraction of the peak learning rate at step 0 <= step < steps: linear warm-up, then the schedule's shape."""
    warmup = config.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    if config.kind == "constant":
        return 1.0
    if config.kind == "inverse_sqrt":
        return math.sqrt(max(1, warmup) / (step + 1)) if step else 1.0
    if config.kind == "wsd":
        left = min(1.0, (steps - 1 - step) / config.decay_steps)
        return config.final + (1.0 - config.final) * left
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    left = 1.0 - progress if config.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final + (1.0 - config.final) * left
