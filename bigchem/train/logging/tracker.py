"""Writes a run's metrics to metrics.jsonl, TensorBoard, tracking services and the log. Rank 0 only."""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from bigchem.base import environment, jsonl
from bigchem.base.progress import LiveLine, Tee, duration
from bigchem.config import RunConfig
from bigchem.run.lifecycle import State, Writer
from bigchem.run.log_files import Rows, try_write
from bigchem.run.ownership import Claim
from bigchem.train.logging.schema import on_board
from bigchem.train.logging.services import Services
from bigchem.train.logging.tensorboard import Board

if TYPE_CHECKING:
    from bigchem.train.engine import StepResult
    from bigchem.train.samples import Sample
    from bigchem.train.saving import TrainingPosition
    from bigchem.train.validation import ValidationResult


class Tracker:
    """Writes a row of metrics every train.log_every steps and at every validation.

    A resumed run cuts off rows past its step, then appends. peak_flops: peak FLOP/s of all ranks' devices together;
    None if unknown, and rows then have no `mfu`. claim: on the run; None if no launcher made one. training_s: training
    time up to the checkpoint that the run resumes from.
    """

    def __init__(
        self,
        config: RunConfig,
        step: int,
        *,
        enabled: bool,
        peak_flops: float | None,
        claim: Claim | None = None,
        training_s: float = 0.0,
    ) -> None:
        self._claim = claim or Claim(config.run_dir)
        self._config, self._enabled, self._peak_flops = config, enabled, peak_flops
        self._saving_s = 0.0
        self._paused_s = 0.0
        self._trained_s = training_s
        self._restart()
        self._open = ExitStack()
        if not enabled:
            return
        self._running(step)
        self._rows = _rows(config.run_dir / "metrics.jsonl", step)
        self._samples = _rows(config.run_dir / "samples.jsonl", step)
        self._board = Board(config, step)
        self._open.push(self._close_board)
        self._services = Services(config)
        self._open.push(lambda kind, *_: self._services.close(failed=kind is not None))
        self._live = LiveLine.where_possible(config.train.steps)
        if self._live is not None:
            self._open.callback(self._live.close)
        self._line = ""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.__exit__(kind, error, at)
        if self._enabled and self._live is not None and self._line and isinstance(sys.stdout, Tee):
            print(self._line, file=sys.stdout.terminal)  # leaves the last row on the terminal; the log has it

    def count(self, tokens: int, capacity: int, flops: float, wait_s: float) -> None:
        """Counts a step. tokens: real ones on all ranks. capacity: tokens its micro-batches could have held. flops: its
        operations. wait_s: seconds spent waiting for data."""
        self._steps += 1
        self._tokens += tokens
        self._capacity += capacity
        self._flops += flops
        self._wait_s += wait_s

    def saved(self, seconds: float) -> None:
        """Counts seconds of pause for a checkpoint, excluded from training time."""
        self._saving_s += seconds

    def published(self, step: int, checkpoint: Path) -> None:
        """Refers tracking services to a published checkpoint."""
        if self._enabled:
            self._services.checkpoint(step, checkpoint)

    def paused(self, seconds: float) -> None:
        """Counts seconds of pause for anything else, excluded from training time."""
        self._paused_s += seconds

    def state(self) -> dict[str, float]:
        """Arguments of this class for the next attempt, stored in checkpoints. Rank 0's values count."""
        return {"training_s": self._trained_s + self._seconds()}

    def log(self, done: TrainingPosition, taken: StepResult, validated: ValidationResult | None) -> None:
        """Writes a row if one is due, the step was validated or the run stops. Shows the step on a terminal."""
        if not self._enabled:
            return
        steps, seconds = self._config.train.steps, self._seconds(0.0 if validated is None else validated.seconds)
        speed, loss = self._tokens / seconds, taken.loss.mean
        if self._live is not None:
            eta = duration((steps - done.steps) * seconds / self._steps)
            self._live.show(done.steps, f"loss {loss:.4f}  {speed:,.0f} tokens/s  eta {eta}")
        due = done.steps % self._config.train.log_every == 0 or done.steps in (1, steps)
        if not due and validated is None and not taken.loss.stop:
            return
        row = self._row(done, taken, validated, seconds)
        self._write(row, [] if validated is None else validated.samples)
        eta_s = (steps - done.steps) * seconds / self._steps
        mfu = f"  mfu {row['mfu']:.1%}" if "mfu" in row else ""
        self._print(
            f"step {done.steps}/{steps}  loss {loss:.4f}  lr {taken.lr:.2e}  grad {taken.grad_norm:.2f}  "
            f"{speed:.0f} tokens/s{mfu}  eta {eta_s:.0f} s" + ("  skipped" if taken.bad else "")
        )
        self._trained_s += seconds
        self._saving_s = self._paused_s = 0.0
        self._restart()

    def _row(
        self, done: TrainingPosition, taken: StepResult, validated: ValidationResult | None, seconds: float
    ) -> dict[str, float]:
        """A row of metrics.jsonl. seconds: training time since the last one."""
        return {
            "step": done.steps,
            "examples": done.examples,
            "tokens": done.tokens,
            "loss": taken.loss.mean,
            **{f"loss/{task}": value for task, value in taken.loss.by_task().items()},
            "lr": taken.lr,
            "grad_norm": taken.grad_norm,
            "tokens_per_s": self._tokens / seconds,
            "tflops": self._flops / seconds / 1e12,
            **({} if self._peak_flops is None else {"mfu": self._flops / seconds / self._peak_flops}),
            "step_s": seconds / self._steps,
            "training_s": self._trained_s + seconds,
            "checkpoint_s": self._saving_s,
            "valid_s": 0.0 if validated is None else validated.seconds,
            "fill": self._tokens / self._capacity,
            "data_wait": self._wait_s / seconds,
            "memory": memory(),
            **({} if validated is None else {"valid_loss": validated.loss}),
            **({} if validated is None else {f"valid_loss/{task}": x for task, x in validated.by_task.items()}),
            "time": time.time(),
        }

    def _seconds(self, valid_s: float = 0.0) -> float:
        """Training time since the last row."""
        return max(1e-9, time.monotonic() - self._since - self._saving_s - self._paused_s - valid_s)

    def _write(self, row: dict[str, float], samples: list[Sample]) -> None:
        step = int(row["step"])
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}  # JSON has no NaN
        self._rows.add(finite)
        self._samples.add(*({"step": step, **sample.as_json()} for sample in samples))
        try_write("tensorboard/", lambda: self._board.show(step, row, samples))
        self._services.log(step, on_board(row))
        try_write("state.json", lambda: self._running(step))

    def _close_board(self, kind: type[BaseException] | None, *_: object) -> None:
        try_write("tensorboard/", lambda: self._board.close(failed=kind is not None))

    def _running(self, step: int) -> None:
        self._claim.move(Writer.RANK_0, State.RUNNING, step=step, steps=self._config.train.steps)

    def _print(self, line: str) -> None:
        """Prints a plain line, to the log only if the terminal has a live line."""
        self._line = line
        log = sys.stdout.log if self._live is not None and isinstance(sys.stdout, Tee) else sys.stdout
        print(line, file=log, flush=True)

    def _restart(self) -> None:
        self._since, self._steps, self._tokens, self._capacity = time.monotonic(), 0, 0, 0
        self._flops, self._wait_s = 0.0, 0.0


def memory() -> float:
    """Bytes: peak allocation of this process on its GPU; without one, peak resident memory."""
    if environment.visible_gpus():
        import torch

        return float(torch.cuda.max_memory_allocated())
    import resource

    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _rows(path: Path, step: int) -> Rows:
    """Opens a JSONL file, after cutting off damaged lines and an interrupted run's rows after `step`."""
    if path.is_file():
        jsonl.repair(path, lambda row: row["step"] <= step, {"step": int})
    path.touch()
    return Rows(path)
