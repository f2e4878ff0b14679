"""Suggests global_tokens that fill the micro-batches of a plan, and their number per step. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bigchem.plan.choices import Choice

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


def summary(found: Suggestion) -> str:
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
