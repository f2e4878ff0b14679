"""Overhead of bigchem's training loop over bare DeepSpeed: same engine, same packed batches, alternating steps.

The loop is `bigchem.train.loop.train` with its loader, loss, logging and everything else it does per step, except
checkpoints. Around each of its steps, alternately before and after, a bare forward, backward and step of the same
engine on the same batches is timed. Besides wall time it reports the process's CPU time, loader thread included, which
other programs on the machine disturb less.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from unittest import mock

import numpy as np
import typer

from bigchem.base import toml
from bigchem.bench.common import Figure, clock, machine, print_figures, small_corpus
from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep, Loader
from bigchem.launch.rendezvous.environment import rendezvous
from bigchem.launch.rendezvous.process_group import finish, start
from bigchem.launch.runs.prepare import prepare
from bigchem.train import loop
from bigchem.train.engine import Engine

ASKED = 3.0
"""Largest acceptable overhead, in per cent."""
LOG_EVERY = 10
"""Steps per turn: the default of train.log_every, so each turn writes one row of metrics."""


class Moment(NamedTuple):
    """Wall and CPU seconds."""

    clock: float
    cpu: float

    @staticmethod
    def now() -> Moment:
        """Now, after waiting for all CUDA work."""
        return Moment(clock(), time.process_time())

    def since(self, earlier: Moment) -> Moment:
        """Seconds since an earlier moment."""
        return Moment(self.clock - earlier.clock, self.cpu - earlier.cpu)


@dataclass
class Times:
    """Wall and CPU seconds per step: the loop's, the bare one's, and the loop's wait for its batches."""

    loop: list[Moment] = field(default_factory=list)
    bare: list[Moment] = field(default_factory=list)
    wait: list[Moment] = field(default_factory=list)

    def added(self, skip: int) -> np.ndarray:
        """[turns, 2] overhead in per cent of each turn after the first `skip` steps: wall, CPU."""
        turns = (len(self.loop) - skip) // LOG_EVERY
        ours, bare = (np.reshape(x[skip : skip + turns * LOG_EVERY], (turns, -1, 2)) for x in (self.loop, self.bare))
        share: np.ndarray = 100 * (ours.sum(axis=1) / bare.sum(axis=1) - 1)
        return share


class Bench:
    """Intercepts the loop's loader and engine."""

    def __init__(self) -> None:
        self.times = Times()
        self.engine: Engine | None = None

    def make_engine(self, *args: Any) -> Engine:
        """Makes the loop's engine and keeps it."""
        self.engine = Engine(*args)
        return self.engine

    def steps(self, real: Generator[LoadedStep]) -> Generator[LoadedStep]:
        """The loader's steps, with a bare step before or after each of the loop's."""
        number = 0
        while True:
            requested = Moment.now()
            loaded = next(real)
            wait = Moment.now().since(requested)
            if number % 2 == 0:
                self.bare(loaded)
            begun = Moment.now()
            yield loaded
            rest = Moment.now().since(begun)
            self.times.loop.append(Moment(wait.clock + rest.clock, wait.cpu + rest.cpu))
            self.times.wait.append(wait)
            if number % 2:
                self.bare(loaded)
            number += 1

    def bare(self, loaded: LoadedStep) -> None:
        """Forward, backward and step, as in DeepSpeed's own examples."""
        engine: Any = self.engine._engine  # type: ignore[union-attr]
        device = self.engine.device  # type: ignore[union-attr]
        batches = [batch.to(device) for batch in loaded.micro_batches]
        begun = Moment.now()
        engine.train()
        for i, batch in enumerate(batches):
            engine.set_gradient_accumulation_boundary(i == len(batches) - 1)
            engine.backward(engine(batch).total / loaded.step.target_tokens, scale_wrt_gas=False)
        engine.step()
        self.times.bare.append(Moment.now().since(begun))


def measure(config: RunConfig, device: Any) -> Times:
    """Trains a run with bare steps in between."""
    bench = Bench()
    original = Loader.steps
    prepare(config)
    with (
        mock.patch.object(loop, "Engine", bench.make_engine),
        mock.patch.object(Loader, "steps", lambda *args: bench.steps(original(*args))),
        (config.run_dir / "output.log").open("w") as output,
        redirect_stdout(output),
    ):
        loop.train(config, device)
    return bench.times


def figures(preset: str, times: Times, skip: int) -> list[Figure]:
    """Medians and quartiles over turns."""
    added = times.added(skip)
    bare, wait = (1e3 * float(np.median([moment.clock for moment in x[skip:]])) for x in (times.bare, times.wait))
    low, middle, high = np.percentile(added, [25, 50, 75], axis=0).tolist()
    turns = f"{len(added)} turns of {LOG_EVERY} steps"
    return [
        Figure(f"{preset}: bare step, median", bare, "ms"),
        Figure(f"{preset}: wait for batches per step, median", wait, "ms"),
        Figure(f"{preset}: overhead in wall time, median of {turns}", middle[0], "%", ASKED),
        Figure(f"{preset}: lower quartile of turns", low[0], "%"),
        Figure(f"{preset}: upper quartile of turns", high[0], "%"),
        Figure(f"{preset}: overhead in CPU time, median", middle[1], "%"),
        Figure(f"{preset}: lower quartile of turns", low[1], "%"),
        Figure(f"{preset}: upper quartile of turns", high[1], "%"),
    ]


def main(
    preset: Annotated[
        list[str] | None, typer.Option(help="Model preset (repeatable); default: sweep-1m, sweep-16m.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder; default: the embedded corpus.")] = None,
    tokens: Annotated[int, typer.Option(min=1024, help="Tokens per step; a step is one micro-batch.")] = 4096,
    turns: Annotated[int, typer.Option(min=1, help=f"Timed turns of {LOG_EVERY} steps.")] = 9,
    ds_config: Annotated[str, typer.Option(help="Name in ds_configs/, or a path.")] = "zero2",
) -> None:
    """Time the training loop against bare DeepSpeed steps on the same batches: bf16 on a GPU, fp32 without one.

    Example: bigchem bench loop --preset sweep-1m --turns 20
    """
    device = start(rendezvous(os.environ, os.getpid()))
    found: list[Figure] = []
    skip = LOG_EVERY
    with tempfile.TemporaryDirectory() as folder:
        path = small_corpus(Path(folder) / "data", rows=3000) if data is None else data.resolve()
        for name in preset or ("sweep-1m", "sweep-16m"):
            table: dict[str, Any] = {
                "name": name,
                "runs": folder,
                "model": {"preset": name},
                "data": {"path": str(path), "global_tokens": tokens, "micro_tokens": tokens},
                "train": {
                    "steps": skip + LOG_EVERY * turns + 1,
                    "precision": "bf16" if device.type == "cuda" else "fp32",
                    "ds_config": ds_config,
                    "log_every": LOG_EVERY,
                },
                "schedule": {"warmup_steps": 2},
                "checkpoint": {"every": 10**9},
            }
            found += figures(name, measure(toml.validate(RunConfig, table, "--preset"), device), skip)
    finish()
    print(", ".join(f"{name} {value}" for name, value in machine(device).items()))
    print_figures(found)
    if any(figure.holds is False for figure in found):
        sys.exit(1)
