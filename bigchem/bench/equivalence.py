"""Trains one model in many ways, stages of ZeRO, ranks, accumulation and packing, and compares the loss curves.

bigchem bench equivalence
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch.rendezvous.secret import new_key

if TYPE_CHECKING:
    import torch

    from bigchem.data.loader import LoadedStep, Loader
    from bigchem.data.order.steps import Step

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

LIMIT = 1e-5
"""Largest relative difference of a step's loss in fp32."""
MICRO_TOKENS = {"one": 600, "few": 600, "whole": 1500}
"""Of the ways of cutting a step of 1,500 tokens: one example a micro-batch, several micro-batches, one a rank."""


@dataclass(frozen=True)
class Way:
    """One way of training the same run."""

    zero_stage: int
    ranks: int
    cut: str

    @property
    def name(self) -> str:
        """As in zero2-3ranks-few."""
        return f"zero{self.zero_stage}-{self.ranks}rank{'s' * (self.ranks > 1)}-{self.cut}"


WAYS = [Way(stage, ranks, cut) for ranks in (1, 3) for stage in (0, 1, 2, 3) for cut in ("whole", "few", "one")]
"""The first is what the others are compared with."""
ULP = "one-weight-rounded-up"


def config_of(way: Way, data: Path, steps: int) -> RunConfig:
    """The run, trained in one of the ways: no dropout, for its masks follow the packing."""
    return RunConfig.model_validate(
        {
            "model": {"preset": "sweep-0.2m", "dropout": 0.0},
            "data": {
                "path": str(data),
                "global_tokens": 1500,
                "micro_tokens": MICRO_TOKENS[way.cut],
                "max_source_tokens": 300,
                "max_target_tokens": 300,
            },
            "train": {"steps": steps, "precision": "fp32", "ds_config": f"zero{way.zero_stage}"},
            "optimizer": {"lr": 1e-3},
            "schedule": {"warmup_steps": min(5, steps - 1)},
        }
    )


def curve(
    config: RunConfig, device: torch.device, *, one_by_one: bool = False, relu: bool = False, ulp: bool = False
) -> list[float]:
    """Losses of a run's steps, by the pieces of train/loop.py without a run folder. Every rank calls it.

    one_by_one: every example is a micro-batch of its own. relu: T5 1.0's feed-forward instead of 1.1's. ulp: one weight
    starts one rounding higher.
    """
    import torch
    import torch.distributed as dist

    from bigchem.data.loader import Loader
    from bigchem.data.step_plan import open_data
    from bigchem.data.text.tokenizer import Tokenizer
    from bigchem.model import presets
    from bigchem.model.t5 import PackedT5
    from bigchem.train import schedule
    from bigchem.train.engine import Engine

    data, rank, world_size = open_data(config.data), dist.get_rank(), dist.get_world_size()
    loader = Loader(data, config.data, config.seed, rank, world_size)
    shape = presets.shape(config.model.preset, Tokenizer.load(data.tokenizer_dir).vocab_size)
    torch.manual_seed(config.seed)
    model = PackedT5(replace(shape, gated=not relu), dropout=0.0)
    if ulp:
        first = next(model.parameters()).data.view(-1)
        first[0] = torch.nextafter(first[0], torch.tensor(float("inf")))
    engine = Engine(model, config, device)
    position, losses = 0, []
    for number in range(config.train.steps):
        step = loader.plan.steps.at(position)
        loaded = split(loader, step, rank, world_size) if one_by_one else loader.load(step)
        losses.append(engine.forward_backward(loaded, 0).mean)
        engine.optimizer_step(config.optimizer.lr * schedule.multiplier(config.schedule, number, config.train.steps))
        position = step.stop
    return losses


def split(loader: Loader, step: Step, rank: int, world_size: int) -> LoadedStep:
    """A rank's share of a step, one example a micro-batch, as many on all ranks: some may be empty."""
    from bigchem.data.loader import LoadedStep

    deal = loader.plan.deal(step, world_size)
    shares = [np.concatenate(deal.share(r)) for r in range(world_size)]
    count = max(map(len, shares))
    chosen = [shares[rank][i : i + 1] for i in range(count)]
    return LoadedStep(step, [loader.read(step, one) for one in chosen])


def compare(curves: dict[str, list[float]]) -> dict[str, float]:
    """Largest relative difference of each curve from the first, over all steps."""
    reference = np.array(next(iter(curves.values())))
    return {name: float((np.abs(np.array(losses) - reference) / reference).max()) for name, losses in curves.items()}


def train_all(ways: list[Way], data: Path, steps: int, relu: bool = False) -> dict[str, list[float]]:
    """The curves of all the ways, with one start of processes for each number of ranks. Last that of the first way with
    one weight a rounding higher: what the run itself makes of a difference."""
    found: dict[str, list[float]] = {}
    for ranks in sorted({way.ranks for way in ways}):
        found |= _on_ranks(ranks, [way for way in ways if way.ranks == ranks], data, steps, relu)
    return {name: found[name] for name in (*(way.name for way in ways), ULP) if name in found}


def _on_ranks(ranks: int, ways: list[Way], data: Path, steps: int, relu: bool) -> dict[str, list[float]]:
    spawn = multiprocessing.get_context("spawn")
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port, results = probe.getsockname()[1], Path(folder) / "curves.json"
        probe.close()
        key = new_key()
        processes = [
            spawn.Process(target=_rank, args=(rank, ranks, port, key, ways, data, steps, relu, results))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise UserError(f"{ranks} ranks failed; their tracebacks are above")
        curves: dict[str, list[float]] = json.loads(results.read_text(encoding="utf-8"))
        return curves


def _rank(
    rank: int, ranks: int, port: int, key: str, ways: list[Way], data: Path, steps: int, relu: bool, results: Path
) -> None:
    os.dup2(2, 1)  # DeepSpeed talks on stdout, which is this program's
    from bigchem.launch.rendezvous.environment import Rendezvous
    from bigchem.launch.rendezvous.process_group import finish, start

    device = start(Rendezvous(rank, ranks, rank, "127.0.0.1", port, "equivalence"), key=key)
    curves = {w.name: curve(config_of(w, data, steps), device, one_by_one=w.cut == "one", relu=relu) for w in ways}
    if WAYS[0] in ways:
        curves[ULP] = curve(config_of(WAYS[0], data, steps), device, relu=relu, ulp=True)
    if rank == 0:
        results.write_text(json.dumps(curves), encoding="utf-8")
    finish()


@contextmanager
def embedded_corpus() -> Iterator[Path]:
    """A data folder of 600 rows of the embedded corpus."""
    from bigchem.base.progress import Progress
    from bigchem.data.build.pipeline import build
    from bigchem.data.build.recipe import BuildConfig
    from bigchem.data.sources.base import SourceConfig

    with tempfile.TemporaryDirectory() as folder:
        sources = (SourceConfig(format="synthetic", split="train", rows=600, seed=1),)
        build(BuildConfig(sources=sources), Path(folder) / "data", Progress(quiet=True), workers=1)
        yield Path(folder) / "data"


@app.command()
def equivalence(
    *,
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps of every run.")] = 50,
    only: Annotated[str, typer.Option(help="Only the ways whose name holds this: zero3, 3ranks, one, ...")] = "",
    relu: Annotated[bool, typer.Option(help="T5 1.0's feed-forward, whose kinks make differences grow.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the curves and differences as JSON.")] = False,
) -> None:
    """The largest relative difference of any step's loss between the ways of training one run in fp32.

    Example: bigchem bench equivalence --only 1rank

    Exits with 1 where a difference is over 1e-5. The last row is no other way, but what the run makes of one rounding.
    """
    ways = [WAYS[0], *(way for way in WAYS[1:] if only in way.name)]
    with embedded_corpus() as data:
        curves = train_all(ways, data, steps, relu)
    differences = compare(curves)
    largest = max(differences[way.name] for way in ways)
    if as_json:
        print(json.dumps({"steps": steps, "limit": LIMIT, "differences": differences, "curves": curves}, indent=1))
    else:
        print(f"{steps} steps, loss {curves[WAYS[0].name][0]:.4f} to {curves[WAYS[0].name][-1]:.4f}")
        for name, difference in differences.items():
            print(f"{name:<22} {difference:.1e}" + ("  over the limit" if difference > LIMIT else ""))
        print(f"largest {largest:.1e}, limit {LIMIT:.0e}")
    if largest > LIMIT:
        raise typer.Exit(1)
