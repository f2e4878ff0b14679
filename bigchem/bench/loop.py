"""bigchem's whole training loop beside bare DeepSpeed: the same engine, the same packed batches, step by step in turn.

The loop is `bigchem.train.loop.train` as it is, with its loader, loss, logging and whatever else it does at a step, but
without checkpoints. Where it asks for its next step, a bare forward, backward and step of the same engine on that
step's batches is timed in between, before and after the loop's own in alternation. Beside the time on the clock there
is the processor time of the process, its loader's thread included, which other programs on the machine disturb less.
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
from bigchem.base.progress import Progress
from bigchem.bench.common import Figure, clock, machine, print_figures
from bigchem.config import RunConfig
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.loader import LoadedStep, Loader
from bigchem.data.sources.base import SourceConfig
from bigchem.launch.rendezvous.environment import rendezvous
from bigchem.launch.rendezvous.process_group import finish, start
from bigchem.launch.runs.prepare import prepare
from bigchem.train import loop
from bigchem.train.engine import Engine

ASKED = 3.0
"""Most per cent that the loop may add."""
LOG_EVERY = 10
"""Steps of a turn, so that each turn has one row of metrics: the default of train.log_every."""


class Moment(NamedTuple):
    """Seconds on the clock and of the processor."""

    clock: float
    cpu: float

    @staticmethod
    def now() -> Moment:
        """When everything that was started has ended."""
        return Moment(clock(), time.process_time())

    def since(self, earlier: Moment) -> Moment:
        """The seconds in between."""
        return Moment(self.clock - earlier.clock, self.cpu - earlier.cpu)


@dataclass
class Times:
    """Seconds of each step, on the clock and of the processor: of the loop's, of the bare one's, and of the loop's what
    it waited for its batches."""

    loop: list[Moment] = field(default_factory=list)
    bare: list[Moment] = field(default_factory=list)
    wait: list[Moment] = field(default_factory=list)

    def added(self, skip: int) -> np.ndarray:
        """[turns, 2] per cent that the loop adds in each turn after the first `skip` steps: on the clock, of the
        processor."""
        turns = (len(self.loop) - skip) // LOG_EVERY
        ours, bare = (np.reshape(x[skip : skip + turns * LOG_EVERY], (turns, -1, 2)) for x in (self.loop, self.bare))
        share: np.ndarray = 100 * (ours.sum(axis=1) / bare.sum(axis=1) - 1)
        return share


class Bench:
    """Stands between the loop and its loader; sees the engine that the loop makes."""

    def __init__(self) -> None:
        self.times = Times()
        self.engine: Engine | None = None

    def make_engine(self, *args: Any) -> Engine:
        """The loop's engine, remembered."""
        self.engine = Engine(*args)
        return self.engine

    def steps(self, real: Generator[LoadedStep]) -> Generator[LoadedStep]:
        """The loader's steps; a bare one is taken before or after each of the loop's."""
        number = 0
        while True:
            asked = Moment.now()
            loaded = next(real)
            wait = Moment.now().since(asked)
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
        """Forward, backward and step, as DeepSpeed's own examples have it."""
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
    """Trains a run, with bare steps in between."""
    bench = Bench()
    original = Loader.steps
    prepare(config)
    with (
        mock.patch.object(loop, "Engine", bench.make_engine),
        mock.patch.object(Loader, "steps", lambda self, position: bench.steps(original(self, position))),
        (config.run_dir / "output.log").open("w") as output,
        redirect_stdout(output),
    ):
        loop.train(config, device)
    return bench.times


def small_corpus(folder: Path) -> Path:
    """A data folder of the embedded corpus."""
    sources = (SourceConfig(format="synthetic", split="train", rows=3000, seed=1),)
    build(BuildConfig(sources=sources), folder, Progress(quiet=True), workers=1)
    return folder


def figures(preset: str, times: Times, skip: int) -> list[Figure]:
    """Medians over turns, and the quartiles of turns."""
    added = times.added(skip)
    bare, wait = (1e3 * float(np.median([moment.clock for moment in x[skip:]])) for x in (times.bare, times.wait))
    low, middle, high = np.percentile(added, [25, 50, 75], axis=0).tolist()
    turns = f"{len(added)} turns of {LOG_EVERY} steps"
    return [
        Figure(f"{preset}: a bare step, median", bare, "ms"),
        Figure(f"{preset}: a step's wait for its batches, median", wait, "ms"),
        Figure(f"{preset}: the loop adds on the clock, median of {turns}", middle[0], "%", ASKED),
        Figure(f"{preset}: quartiles of turns, lower", low[0], "%"),
        Figure(f"{preset}: quartiles of turns, upper", high[0], "%"),
        Figure(f"{preset}: the loop adds in processor time, median", middle[1], "%"),
        Figure(f"{preset}: quartiles of turns, lower", low[1], "%"),
        Figure(f"{preset}: quartiles of turns, upper", high[1], "%"),
    ]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    preset: Annotated[list[str] | None, typer.Option(help="Repeatable; default: sweep-1m, sweep-16m.")] = None,
    data: Annotated[Path | None, typer.Option(help="A built data folder; default: the embedded corpus.")] = None,
    tokens: Annotated[int, typer.Option(min=1024, help="Tokens of a step, which is one micro-batch.")] = 4096,
    turns: Annotated[int, typer.Option(min=1, help=f"Turns of {LOG_EVERY} steps.")] = 9,
    ds_config: Annotated[str, typer.Option(help="A name in ds_configs/ or a path.")] = "zero2",
) -> None:
    """Time the training loop beside bare DeepSpeed steps on the same batches; bf16 on a GPU, fp32 without one.

    Example: bigchem bench loop --preset sweep-1m --turns 20
    """
    device = start(rendezvous(os.environ, os.getpid()))
    found: list[Figure] = []
    skip = LOG_EVERY
    with tempfile.TemporaryDirectory() as folder:
        path = small_corpus(Path(folder) / "data") if data is None else data.resolve()
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
