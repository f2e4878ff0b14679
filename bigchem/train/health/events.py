"""Events of a run: one log line from rank 0 and a row in the run folder's events.jsonl."""

from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.loader import Loader
from bigchem.data.order.steps import Step
from bigchem.run.log_files import BAD_STEPS, record_event
from bigchem.train.collectives import on_rank0
from bigchem.train.health.step_guard import BadStep, RollBacks, StepGuard

KINDS = {"loss": "bad loss", "gradient": "bad gradient", "spike": "loss spike"}
NAMED = 4
"""Example keys in the log line; the row has all."""


def report(run_dir: Path, step: int, kind: str, action: str, detail: str, keys: Sequence[str] = ()) -> None:
    """Logs an event and adds its row; one rank calls it. step: number, from 1. action: the response. keys: of the
    examples in the step."""
    examples = f"; {first_keys(keys)}" if keys else ""
    print(f"{kind} at step {step}: {detail}: {action}{examples}", flush=True)
    record_event(run_dir, step, kind, action, detail, keys)


def report_end(run_dir: Path, step: int, saved: int, reason: str) -> None:
    """Reports that the run stops before its last step. saved: step of the newest checkpoint."""
    action = "saved" if saved == step else f"not saved among bad steps, the run resumes from step {saved}"
    report(run_dir, step, "stop", action, reason)


def skipped_step(
    config: RunConfig,
    step: int,
    bad: BadStep,
    guard: StepGuard,
    roll_backs: RollBacks,
    saved: int,
    keys: Sequence[str],
) -> bool:
    """Reports a skipped step. Returns whether the run must roll back to its newest checkpoint, after step `saved`;
    UserError if it must but cannot. Every rank calls it with the same arguments."""
    limit = config.health.max_bad_steps
    refusal = roll_backs.refusal(saved) if guard.exhausted else None
    if dist.get_rank() == 0:
        action = f"skipped ({guard.streak} of {limit} in a row)"
        report(config.run_dir, step, KINDS[bad.kind], action, bad.reason, keys)
        if guard.exhausted:
            action = f"stopped: {refusal}" if refusal else f"rolled back to the checkpoint after step {saved}"
            report(config.run_dir, step, "roll back", action, f"{limit} {BAD_STEPS}")
    if refusal:
        spike = "; or raise health.spike_zscore" if bad.kind == "spike" else ""
        raise UserError(
            f"{limit} {BAD_STEPS} up to step {step}, the last: {bad.reason}; {refusal}",
            first_keys(keys),
            f"lower optimizer.lr, or check these rows (events.jsonl has all){spike}",
        )
    return guard.exhausted


def keys_of(loader: Loader, step: Step) -> list[str]:
    """Keys of a step's examples, on every rank; read by rank 0. Empty if the data cannot be read."""

    def read() -> list[str]:
        try:
            return loader.keys(step)
        except (UserError, OSError):
            return []

    return on_rank0(read)


def first_keys(keys: Sequence[str]) -> str:
    """The first keys, and their number."""
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return f"{len(keys)} examples: {' '.join(keys[:NAMED])}{more}"
