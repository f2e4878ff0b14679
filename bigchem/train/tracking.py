"""Where a run's numbers go: metrics.jsonl, TensorBoard, and one line on the terminal. Rank 0 only."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bigchem import strict
from bigchem.config import RunConfig
from bigchem.train.state import write_state

if TYPE_CHECKING:
    from bigchem.train.engine import StepLoss
    from bigchem.train.saving import Done


class Tracker:
    """Writes a row of metrics every train.log_every steps.

    A resumed run appends; rows past its step are cut off first. peak_flops: operations per second that all ranks'
    devices together are built for; None where that is not known, and rows then have no `mfu`.
    """

    def __init__(self, config: RunConfig, step: int, *, enabled: bool, peak_flops: float | None) -> None:
        self._config, self._enabled, self._peak_flops = config, enabled, peak_flops
        self._restart()
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter

        write_state(config.run_dir, "running", step=step, steps=config.train.steps)
        self._rows = _appender(config.run_dir / "metrics.jsonl", step)
        self._board = SummaryWriter(str(config.run_dir / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._enabled:
            self._rows.close()
            self._board.close()

    def log(
        self,
        done: Done,
        loss: StepLoss,
        lr: float,
        grad_norm: float,
        *,
        tokens: int,
        room: int,
        flops: float,
        wait_s: float,
    ) -> None:
        """Counts a step, and writes a row when it is time.

        tokens: real tokens of the step on all ranks. room: tokens that its micro-batches could have held. flops: its
        operations. wait_s: seconds spent waiting for data.
        """
        self._tokens += tokens
        self._room += room
        self._flops += flops
        self._wait_s += wait_s
        steps = self._config.train.steps
        if not self._enabled or (done.steps % self._config.train.log_every and done.steps not in (1, steps)):
            return
        seconds = max(1e-9, time.monotonic() - self._since)
        row: dict[str, float] = {
            "step": done.steps,
            "examples": done.examples,
            "tokens": done.tokens,
            "loss": loss.mean,
            **{f"loss/{task}": value for task, value in loss.by_task().items()},
            "lr": lr,
            "grad_norm": grad_norm,
            "tokens_per_s": self._tokens / seconds,
            "tflops": self._flops / seconds / 1e12,
            **({} if self._peak_flops is None else {"mfu": self._flops / seconds / self._peak_flops}),
            "fill": self._tokens / self._room,
            "data_wait": self._wait_s / seconds,
            "time": time.time(),
        }
        self._write(row)
        eta = (steps - done.steps) * tokens / row["tokens_per_s"]
        mfu = f"  mfu {row['mfu']:.1%}" if "mfu" in row else ""
        print(
            f"step {done.steps}/{steps}  loss {loss.mean:.4f}  lr {lr:.2e}  grad {grad_norm:.2f}  "
            f"{row['tokens_per_s']:.0f} tokens/s{mfu}  eta {eta:.0f} s",
            flush=True,
        )
        self._restart()

    def _write(self, row: dict[str, float]) -> None:
        self._rows.write(json.dumps(row) + "\n")
        self._rows.flush()
        for name in row.keys() - {"step", "time"}:
            self._board.add_scalar(name, row[name], int(row["step"]))
        self._board.flush()
        write_state(self._config.run_dir, "running", step=int(row["step"]), steps=self._config.train.steps)

    def _restart(self) -> None:
        self._since, self._tokens, self._room = time.monotonic(), 0, 0
        self._flops, self._wait_s = 0.0, 0.0


def _appender(path: Path, step: int) -> Any:
    """metrics.jsonl opened for appending, without the rows after `step` that an interrupted run left."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            strict.write_atomically(path, "".join(kept))
    return path.open("a", encoding="utf-8")
