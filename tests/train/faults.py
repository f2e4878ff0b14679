"""Injects faults into a run from outside, for tests.

`inject` patches the calling process. A rank calls it before it trains. To run a program with faults:
`python faults.py FAULTS.json train RUN.toml`, where the file holds a list of faults.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import blocking
import torch

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep, Loader
from bigchem.data.order.steps import Step
from bigchem.train import loop
from bigchem.train.engine import Engine, StepLoss


@dataclass(frozen=True)
class Fault:
    """What goes wrong on one rank in some steps, numbered from 1.

    kind: `gradient` (multiplied by value; the loss stays), `loss` (both multiplied), `forward` (seconds of sleep in the
    forward pass), `wait` (in the forward pass, until the file FLAG.go exists), `data` (seconds of sleep in loading),
    `kill` (the process kills itself), `raise` (the forward pass fails with a KeyError), `mistake` (with a UserError).
    `blocking`, without steps: this rank's groups block as NCCL's do.
    times: how often per step, as a rollback repeats steps. flag: a file made when the fault strikes; it prevents the
    fault in later processes.
    """

    kind: str
    rank: int
    steps: tuple[int, ...]
    value: float = 0.0
    times: int = 1
    flag: str = ""


class Faults:
    """The faults of this process, and its current step."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults
        self._struck: dict[tuple[int, int], int] = {}
        self.step = 0

    def strike(self, kind: str, rank: int, step: int) -> Fault | None:
        """Returns and counts the due fault of a kind, if any."""
        for number, fault in enumerate(self._faults):
            struck = self._struck.get((number, step), 0)
            if (fault.kind, fault.rank) == (kind, rank) and step in fault.steps and struck < fault.times:
                if fault.flag and Path(fault.flag).exists():
                    continue
                if fault.flag:
                    Path(fault.flag).touch()
                self._struck[number, step] = struck + 1
                return fault
        return None


def inject(faults: Sequence[Fault], seen: list[dict[str, Any]] | None = None) -> None:
    """Patches this process. seen: gets a row per step, with `snapshot` before and after it."""
    active = Faults(faults)
    if any(fault.kind == "blocking" for fault in faults):
        blocking.install()
    original = {
        "seed": loop.dropout_seed,
        "forward_backward": Engine.forward_backward,
        "optimizer_step": Engine.optimizer_step,
        "load": Loader.load,
    }

    def dropout_seed(seed: int, step: int) -> int:
        active.step = step + 1
        return original["seed"](seed, step)

    def forward_backward(self: Engine, loaded: LoadedStep, *arguments: Any) -> StepLoss:
        rank, step, inner = self.rank, active.step, self._engine
        if active.strike("kill", rank, step):
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        gradient, loss = active.strike("gradient", rank, step), active.strike("loss", rank, step)
        sleep, wait = active.strike("forward", rank, step), active.strike("wait", rank, step)
        fails, mistaken = active.strike("raise", rank, step), active.strike("mistake", rank, step)
        forward, backward = inner.forward, inner.backward

        def bad_forward(*arguments: Any) -> Any:
            if sleep:
                time.sleep(sleep.value)
            while wait and not Path(f"{wait.flag}.go").exists():
                time.sleep(0.01)
            if fails:
                raise KeyError("a fault")
            if mistaken:
                raise UserError("a fault", "where", "fix it")
            found = forward(*arguments)
            return (
                found._replace(total=found.total * loss.value, per_task=found.per_task * loss.value) if loss else found
            )

        inner.forward = bad_forward
        inner.backward = lambda total, **more: backward(total * gradient.value if gradient else total, **more)
        try:
            return original["forward_backward"](self, loaded, *arguments)
        finally:
            del inner.forward, inner.backward

    def optimizer_step(self: Engine, lr: float, *, skip: bool = False) -> float:
        before = snapshot(self)
        norm: float = original["optimizer_step"](self, lr, skip=skip)
        seen.append({"step": active.step, "norm": norm, "before": before, "after": snapshot(self)})
        return norm

    def load(self: Loader, step: Step) -> LoadedStep:
        count[0] += 1
        if fault := active.strike("data", self._rank, count[0]):
            time.sleep(fault.value)
        return original["load"](self, step)

    count = [0]
    loop.dropout_seed = dropout_seed
    Engine.forward_backward = forward_backward
    Loader.load = load
    if seen is not None:
        Engine.optimizer_step = optimizer_step


def snapshot(engine: Engine) -> list[float]:
    """Identifies this rank's weights and moments by each tensor's sum of absolute values. At ZeRO-3, which gathers and
    frees the module's weights at any time, it uses the rank's pieces."""
    optimizer = engine._optimizer
    tensors = [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    if engine.zero_stage == 3:
        tensors += [*engine._engine.optimizer.fp32_partitioned_groups_flat]
        tensors += [p.ds_tensor for p in engine._engine.module.parameters()]
    else:
        tensors += [p for group in optimizer.param_groups for p in group["params"]]
        tensors += [*engine._engine.module.parameters()]
    return [float(tensor.detach().double().abs().sum()) for tensor in tensors]


def write(path: Path, faults: Sequence[Fault]) -> None:
    """Writes FAULTS.json."""
    path.write_text(json.dumps([asdict(fault) for fault in faults]))


def train_with(config: RunConfig, faults: Sequence[Fault]) -> tuple[str, list[dict[str, Any]]]:
    """Trains on this rank with faults. Returns the outcome (an error's text or the number of steps) and `seen`."""
    from runs import train_here

    seen: list[dict[str, Any]] = []
    patched = (loop.dropout_seed, Engine.forward_backward, Engine.optimizer_step, Loader.load)
    inject(faults, seen)
    try:
        return str(train_here(config)), seen
    except UserError as error:
        return str(error), seen
    finally:
        loop.dropout_seed, Engine.forward_backward, Engine.optimizer_step, Loader.load = patched


if __name__ == "__main__":
    table = json.loads(Path(sys.argv.pop(1)).read_text())
    inject([Fault(**{**row, "steps": tuple(row["steps"])}) for row in table])
    from bigchem.cli.main import main

    main()
