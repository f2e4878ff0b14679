"""What happens to a run beside training: one line from rank 0, and a row in the run folder's events.jsonl."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch.distributed as dist

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.loader import Loader
from bigchem.data.order.steps import Step
from bigchem.run.log_files import Rows
from bigchem.train.collectives import on_rank0
from bigchem.train.health.step_guard import BadStep, RollBacks, StepGuard

KINDS = {"loss": "bad loss", "gradient": "bad gradient", "spike": "loss spike"}
TOLD = 4
"""Example keys that the line names; the row has all."""


def report(run_dir: Path, step: int, kind: str, action: str, detail: str, keys: Sequence[str] = ()) -> None:
    """Tells an event; one rank calls it. step: its number, from 1. kind: what it is about. action: what is done.
    keys: of the examples in the step."""
    examples = f"; {first_keys(keys)}" if keys else ""
    print(f"{kind} at step {step}: {detail}: {action}{examples}", flush=True)
    record(run_dir, step, kind, action, detail, keys)


def record(run_dir: Path, step: int, kind: str, action: str, detail: str, keys: Sequence[str] = ()) -> None:
    """The row of an event alone, where the line has a form of its own."""
    row = {"time": time.time(), "step": step, "kind": kind, "action": action, "detail": detail, "keys": list(keys)}
    rows_of(run_dir).add(row)


@cache
def rows_of(run_dir: Path) -> Rows:
    """A run's events.jsonl."""
    return Rows(run_dir / "events.jsonl")


def report_end(run_dir: Path, step: int, saved: int, reason: str) -> None:
    """Tells that the run stops before its last step. saved: step of the newest checkpoint."""
    kept = "saved" if saved == step else f"not saved among bad steps, the run goes on from step {saved}"
    report(run_dir, step, "stop", kept, reason)


def skipped_step(
    config: RunConfig,
    step: int,
    bad: BadStep,
    health: StepGuard,
    roll_backs: RollBacks,
    saved: int,
    keys: Sequence[str],
) -> bool:
    """Tells that a step was left out; whether the run is to go back to its newest checkpoint, which is after step
    `saved`. UserError if it would have to and may not. Every rank calls it, with the same."""
    limit = config.health.max_bad_steps
    refusal = roll_backs.refusal(saved) if health.exhausted else None
    if dist.get_rank() == 0:
        action = f"left out ({health.streak} of {limit} in a row)"
        report(config.run_dir, step, KINDS[bad.kind], action, bad.reason, keys)
        if health.exhausted:
            action = f"stopped: {refusal}" if refusal else f"back to the checkpoint after step {saved}"
            report(config.run_dir, step, "roll back", action, f"{limit} bad steps in a row")
    if refusal:
        spike = "; or raise health.spike_zscore" if bad.kind == "spike" else ""
        raise UserError(
            f"{limit} bad steps in a row up to step {step}, the last one: {bad.reason}; {refusal}",
            first_keys(keys),
            f"lower optimizer.lr, or look at these rows (all are in events.jsonl){spike}",
        )
    return health.exhausted


def keys_of(loader: Loader, step: Step) -> list[str]:
    """Keys of a step's examples, read by rank 0, on every rank; none where the data cannot be read just now."""

    def read() -> list[str]:
        try:
            return loader.keys(step)
        except (UserError, OSError):
            return []

    return on_rank0(read)


def first_keys(keys: Sequence[str]) -> str:
    """The first keys, and how many there are."""
    more = f" and {len(keys) - TOLD} more" if len(keys) > TOLD else ""
    return f"{len(keys)} examples: {' '.join(keys[:TOLD])}{more}"
