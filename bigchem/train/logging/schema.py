"""The schema of metrics.jsonl and TensorBoard's names for its fields. Pure. Documented in docs/metrics.md."""

from collections.abc import Mapping
from typing import NamedTuple


class Metric(NamedTuple):
    """One field of a row. board: its name in TensorBoard; None if not shown there."""

    unit: str
    board: str | None
    meaning: str


METRICS: dict[str, Metric] = {
    "step": Metric("steps", None, "Optimizer steps done; TensorBoard's horizontal axis."),
    "time": Metric("seconds", None, "When the row was written, since 1970."),
    "examples": Metric("examples", "data/examples", "Examples consumed by all ranks since the run's start."),
    "tokens": Metric("tokens", "data/tokens", "Real source and target tokens consumed since the run's start."),
    "loss": Metric("nats per target token", "loss/all", "Cross-entropy of the step, over all ranks and tasks."),
    "loss/TASK": Metric("nats per target token", "loss/TASK", "The same for each task in the step."),
    "lr": Metric("", "optimizer/lr", "Learning rate of the step."),
    "grad_norm": Metric("", "optimizer/grad_norm", "Norm of the step's gradient before clipping."),
    "tokens_per_s": Metric("tokens/s", "throughput/tokens_per_s", "Real tokens of all ranks over training time."),
    "tflops": Metric("10^12 operations/s", "throughput/tflops", "Operations of all ranks over training time."),
    "mfu": Metric(
        "share",
        "throughput/mfu",
        "The same over the devices' dense peak, without recomputed activations. Only if the peak is known.",
    ),
    "step_s": Metric("seconds", "throughput/step_s", "Mean training time per step since the last row."),
    "training_s": Metric(
        "seconds", None, "Training time of all steps so far; repeated steps count once, the last time."
    ),
    "checkpoint_s": Metric("seconds", "throughput/checkpoint_s", "Pause for checkpoints since the last row."),
    "valid_s": Metric("seconds", "throughput/valid_s", "Pause for validation since the last row."),
    "fill": Metric("share", "data/fill", "Real tokens over the capacity of the micro-batches."),
    "data_wait": Metric("share", "data/wait", "Share of training time that rank 0 waited for data."),
    "memory": Metric("bytes", "memory/peak", "Peak allocation on rank 0's GPU; without one, peak resident memory."),
    "valid_loss": Metric(
        "nats per target token", "validation/loss", "Mean of the tasks' losses. Only in rows with a validation."
    ),
    "valid_loss/TASK": Metric(
        "nats per target token", "validation/TASK", "Loss of each task. Only in rows with a validation."
    ),
}
"""Training time excludes checkpoints, validations and writing a profile."""


def field_of(name: str) -> str:
    """The schema's field for a row's key: `loss/TASK` for `loss/forward`."""
    prefix, slash, _ = name.partition("/")
    return f"{prefix}/TASK" if slash else name


def on_board(row: Mapping[str, float]) -> dict[str, float]:
    """The values of a row that TensorBoard shows, by its names."""
    return {board: value for name, value in row.items() if (board := board_name(name)) is not None}


def board_name(name: str) -> str | None:
    """TensorBoard's name for a row's key. KeyError if it is not in the schema."""
    board = METRICS[field_of(name)].board
    return None if board is None else board.replace("TASK", name.partition("/")[2])
