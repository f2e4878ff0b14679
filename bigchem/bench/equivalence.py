"""Trains one run under several ZeRO stages, numbers of ranks and packings, and compares the loss curves."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import typer

from bigchem.base import environment
from bigchem.bench.common import small_corpus
from bigchem.config import RunConfig
from bigchem.launch.cluster.local import on_ranks

if TYPE_CHECKING:
    from bigchem.data.loader import LoadedStep, Loader
    from bigchem.data.order.steps import Step

TIMEOUT_MIN = 24 * 60
LIMIT = 1e-5
"""Largest relative difference of a step's loss in fp32."""
MICRO_TOKENS = {"one": 600, "few": 600, "whole": 1500}
"""How a step of 1,500 tokens is cut: one example per micro-batch, several micro-batches, one per rank."""


@dataclass(frozen=True)
class Variant:
    """One configuration of the same run."""

    zero_stage: int
    ranks: int
    cut: str

    @property
    def name(self) -> str:
        """As in zero2-3ranks-few."""
        return f"zero{self.zero_stage}-{self.ranks}rank{'s' * (self.ranks > 1)}-{self.cut}"


VARIANTS = [Variant(stage, ranks, cut) for ranks in (1, 3) for stage in (0, 1, 2, 3) for cut in ("whole", "few", "one")]
"""The first is the reference."""
ULP = "one-weight-rounded-up"


def config_of(variant: Variant, data: Path, steps: int, dropout: float) -> RunConfig:
    """The run as this variant."""
    return RunConfig.model_validate(
        {
            "model": {"preset": "sweep-0.2m", "dropout": dropout},
            "data": {
                "path": str(data),
                "global_tokens": 1500,
                "micro_tokens": MICRO_TOKENS[variant.cut],
                "max_source_tokens": 300,
                "max_target_tokens": 300,
            },
            "train": {"steps": steps, "precision": "fp32", "ds_config": f"zero{variant.zero_stage}"},
            "optimizer": {"lr": 1e-3},
            "schedule": {"warmup_steps": min(5, steps - 1)},
        }
    )


def curve(
    config: RunConfig, device: torch.device, *, one_by_one: bool = False, relu: bool = False, ulp: bool = False
) -> list[float]:
    """The loss of each step, from the pieces of train/loop.py without a run folder. Call on every rank.

    one_by_one: one example per micro-batch. relu: T5 1.0's feed-forward instead of 1.1's. ulp: one weight starts one
    ULP higher.
    """
    import torch.distributed as dist

    from bigchem.data.loader import Loader
    from bigchem.data.step_plan import open_data
    from bigchem.data.text.tokenizer import Tokenizer
    from bigchem.model import presets
    from bigchem.model.t5 import PackedT5
    from bigchem.train import schedule
    from bigchem.train.engine import Engine
    from bigchem.train.loop import dropout_seed

    data, rank, world_size = open_data(config.data), dist.get_rank(), dist.get_world_size()
    loader = Loader(data, config.data, config.seed, rank, world_size)
    shape = presets.shape(config.model.preset, Tokenizer.load(data.tokenizer_dir).vocab_size)
    torch.manual_seed(config.seed)
    gated = not relu
    shape = replace(shape, gated=gated, activation="gelu_new" if gated else "relu")
    model = PackedT5(shape, dropout=config.model.dropout)
    if ulp:
        first = next(model.parameters()).data.view(-1)
        first[0] = torch.nextafter(first[0], torch.tensor(float("inf")))
    engine = Engine(model, config, device, loader.names)
    position, losses = 0, []
    for number in range(config.train.steps):
        step = loader.plan.steps.at(position)
        loaded = split(loader, step, rank, world_size) if one_by_one else loader.load(step)
        losses.append(engine.forward_backward(loaded, dropout_seed(config.seed, number)).mean)
        engine.optimizer_step(config.optimizer.lr * schedule.multiplier(config.schedule, number, config.train.steps))
        position = step.stop
    return losses


def split(loader: Loader, step: Step, rank: int, world_size: int) -> LoadedStep:
    """A rank's share of a step, one example per micro-batch. All ranks have the same number, so some may be empty."""
    from bigchem.data.loader import LoadedStep

    deal = loader.plan.deal(step, world_size)
    shares = [np.concatenate(deal.share(r)) for r in range(world_size)]
    count = max(map(len, shares))
    chosen = [shares[rank][i : i + 1] for i in range(count)]
    return LoadedStep(step, [loader.read(step, examples) for examples in chosen])


def compare(curves: dict[str, list[float]]) -> dict[str, float]:
    """Largest relative difference of each curve from the first, over all steps."""
    reference = np.array(next(iter(curves.values())))
    return {name: float((np.abs(np.array(losses) - reference) / reference).max()) for name, losses in curves.items()}


def train_all(
    variants: list[Variant], data: Path, steps: int, dropout: float, relu: bool = False
) -> dict[str, list[float]]:
    """The curves of all variants; processes are started once per number of ranks. The last curve is the reference with
    one weight one ULP higher: how the run itself amplifies a difference."""
    found: dict[str, list[float]] = {}
    for ranks in sorted({variant.ranks for variant in variants}):
        chosen = [variant for variant in variants if variant.ranks == ranks]
        arguments = (chosen, data, steps, dropout, relu)
        found |= on_ranks(_rank, ranks, TIMEOUT_MIN, *arguments, gpus=environment.visible_gpus() > 0)[0]
    return {name: found[name] for name in (*(variant.name for variant in variants), ULP) if name in found}


def _rank(
    device: torch.device, variants: list[Variant], data: Path, steps: int, dropout: float, relu: bool
) -> dict[str, list[float]]:
    curves = {}
    for w in variants:
        curves[w.name] = curve(config_of(w, data, steps, dropout), device, one_by_one=w.cut == "one", relu=relu)
    if VARIANTS[0] in variants:
        curves[ULP] = curve(config_of(VARIANTS[0], data, steps, dropout), device, relu=relu, ulp=True)
    return curves


def main(
    *,
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps per run.")] = 50,
    only: Annotated[
        str, typer.Option(help="Run only variants whose name contains this, such as zero3 or 3ranks.")
    ] = "",
    dropout: Annotated[float, typer.Option(min=0.0, max=0.9, help="Dropout rate.")] = 0.1,
    relu: Annotated[bool, typer.Option(help="Use T5 1.0's ReLU, whose kink amplifies differences.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the curves and differences as JSON.")] = False,
) -> None:
    """Train one run in fp32 under several ZeRO stages, ranks and packings, and compare each step's loss.

    Example: bigchem bench equivalence --only 1rank

    Prints each variant's largest relative difference from the first, and exits with 1 if one is over 1e-5. The last
    row, the reference with one weight rounded up, shows the effect of a single rounding.
    """
    variants = [VARIANTS[0], *(variant for variant in VARIANTS[1:] if only in variant.name)]
    with tempfile.TemporaryDirectory() as folder:
        curves = train_all(variants, small_corpus(Path(folder) / "data"), steps, dropout, relu)
    differences = compare(curves)
    largest = max(differences[variant.name] for variant in variants)
    if as_json:
        print(json.dumps({"steps": steps, "limit": LIMIT, "differences": differences, "curves": curves}, indent=1))
    else:
        print(f"{steps} steps, loss {curves[VARIANTS[0].name][0]:.4f} to {curves[VARIANTS[0].name][-1]:.4f}")
        for name, difference in differences.items():
            print(f"{name:<22} {difference:.1e}" + ("  over the limit" if difference > LIMIT else ""))
        print(f"largest {largest:.1e}, limit {LIMIT:.0e}")
    if largest > LIMIT:
        raise typer.Exit(1)
