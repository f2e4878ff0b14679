"""The schema of metrics.jsonl, and where TensorBoard shows each of its fields. Pure. docs/metrics.md is its page."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """One field of a row. board: its name in TensorBoard; None: it is not shown."""

    unit: str
    board: str | None
    meaning: str


METRICS: dict[str, Metric] = {
    "step": Metric("steps", None, "Optimizer steps done; TensorBoard's horizontal axis."),
    "time": Metric("seconds", None, "When the row was written, since 1970."),
    "examples": Metric("examples", "data/examples", "Examples consumed by all ranks since the run's start."),
    "tokens": Metric("tokens", "data/tokens", "Real source and target tokens consumed since the run's start."),
    "loss": Metric("nats per target token", "loss/all", "Cross-entropy of the step, over all ranks and tasks."),
    "loss/TASK": Metric("nats per target token", "loss/TASK", "The same of each task that the step holds."),
    "lr": Metric("", "optimizer/lr", "Learning rate of the step."),
    "grad_norm": Metric("", "optimizer/grad_norm", "Norm of the step's gradient, before clipping."),
    "tokens_per_s": Metric("tokens/s", "throughput/tokens_per_s", "Real tokens of all ranks over training time."),
    "tflops": Metric("10^12 operations/s", "throughput/tflops", "Operations of all ranks over training time."),
    "mfu": Metric(
        "share",
        "throughput/mfu",
        "The same over the devices' dense peak, recomputed activations left out; where the peak is known.",
    ),
    "step_s": Metric("seconds", "throughput/step_s", "Training time of a step, mean since the last row."),
    "training_s": Metric(
        "seconds", None, "Training time of all steps done; of steps that were lost and done again, the last time."
    ),
    "checkpoint_s": Metric(
        "seconds", "throughput/checkpoint_s", "Training stood still for checkpoints since the last row."
    ),
    "valid_s": Metric("seconds", "throughput/valid_s", "Training stood still for validation since the last row."),
    "fill": Metric("share", "data/fill", "Real tokens over what the micro-batches could have held."),
    "data_wait": Metric("share", "data/wait", "Part of training time that rank 0 waited for data."),
    "memory": Metric(
        "bytes", "memory/peak", "The most that rank 0 has had allocated on its GPU; without one, resident."
    ),
    "valid_loss": Metric(
        "nats per target token", "validation/loss", "Mean over tasks of their losses; in rows of validations."
    ),
    "valid_loss/TASK": Metric("nats per target token", "validation/TASK", "Loss of each task; in rows of validations."),
}
"""Training time is the time since the last row without checkpoints and validations."""


def field_of(name: str) -> str:
    """The schema's field that a row's key belongs to: `loss/forward` to `loss/TASK`."""
    prefix, slash, _ = name.partition("/")
    return f"{prefix}/TASK" if slash else name


def board_name(name: str) -> str | None:
    """TensorBoard's name for a row's key; KeyError if the schema lacks it."""
    board = METRICS[field_of(name)].board
    return None if board is None else board.replace("TASK", name.partition("/")[2])
