"""Which global_tokens fills the micro-batches of a plan, and how many a step should accumulate. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bigchem.plan.choices import Choice

FULL = 0.95
"""Share from which on a step's micro-batches count as full."""
WAITING = 0.1
"""Share of a step, waiting for other GPUs, from which on more accumulation is worth a word."""
MOST = 64
"""Micro-batches a step: nothing larger is suggested."""


@dataclass(frozen=True)
class Suggestion:
    """global_tokens and the micro-batches that each GPU accumulates in a step. why: in a sentence."""

    global_tokens: int
    micro_batches: int
    why: str


def suggestion(choice: Choice, global_tokens: int) -> Suggestion:
    """For a row of a plan whose steps have `global_tokens`.

    What the run asks for is changed only to fill its micro-batches: the size of a step decides how a model learns, and
    no arithmetic of memory knows which is best. Where GPUs wait for each other a larger one is named, not suggested.
    """
    round_tokens = choice.setup.world_size * choice.micro_tokens
    now = choice.time.micro_batches
    full = global_tokens / (round_tokens * now)
    count = now if full >= FULL else max(1, round(global_tokens / round_tokens))
    tokens = global_tokens if full >= FULL else count * round_tokens
    if full >= FULL:
        why = f"the run's own; its micro-batches are {100 * full:.0f} % full"
    else:
        why = f"{global_tokens:,} would leave micro-batches {100 * full:.0f} % full"
    return Suggestion(tokens, count, f"{why}; {_waiting(choice, round_tokens, global_tokens)}")


def summary(found: Suggestion) -> str:
    """One line."""
    plural = "" if found.micro_batches == 1 else "es"
    return (
        f"data.global_tokens={found.global_tokens}, {found.micro_batches} micro-batch{plural} a step on every GPU: "
        f"{found.why}"
    )


def _waiting(choice: Choice, round_tokens: int, global_tokens: int) -> str:
    """On communication that is not hidden, and how far accumulating would spread it. Only stages 0 and 1 send gradients
    once a step, however many micro-batches it has."""
    time = choice.time
    share = time.exposed / time.total
    told = f"GPUs wait for each other {100 * share:.0f} % of a step"
    if share <= WAITING or choice.setup.stage > 1:
        return told
    of_one = time.compute * round_tokens / global_tokens  # of a full micro-batch on every GPU
    count = math.ceil((time.exposed * (1 - WAITING) / WAITING - time.optimizer) / of_one)
    if count > MOST:
        return told
    return (
        f"{told}, and {100 * WAITING:.0f} % with {count} micro-batches: global_tokens = {count * round_tokens:,}, "
        "if the model learns as well from larger steps"
    )
