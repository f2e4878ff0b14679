"""Everything DeepSpeed: its configuration, the engine, and one optimizer step through it.

DeepSpeed owns sharding, optimizer state, offload and gradient reduction. The number of micro-batches of a step comes
with the step, so the accumulation boundary is set here and the loss is scaled here: it is the sum of token losses over
the step divided by the step's target tokens, whatever the ranks and the accumulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist

from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep
from bigchem.errors import UserError
from bigchem.model.t5 import PackedBatch, PackedT5
from bigchem.tasks import TRAINABLE_NAMES
from bigchem.train.ds_config import ds_config_for, zero_stage
from bigchem.train.optimizer import build_optimizer
from bigchem.train.signals import Wish
from bigchem.train.stopwatch import Stopwatch


@dataclass(frozen=True)
class StepLoss:
    """Token losses of one step over all ranks: sums and counts by task [tasks], float64 on the CPU."""

    sums: torch.Tensor
    counts: torch.Tensor
    stop: bool
    """Whether any rank asked to stop."""
    by_person: bool = False
    """Whether a person asked any rank to."""

    @property
    def mean(self) -> float:
        """Loss per target token."""
        return float(self.sums.sum() / self.counts.sum())

    def by_task(self) -> dict[str, float]:
        """Mean loss of each task that has tokens in the step."""
        return {n: float(self.sums[i] / self.counts[i]) for i, n in enumerate(TRAINABLE_NAMES) if self.counts[i] > 0}


class Engine:
    """A PackedT5 under DeepSpeed. The process group is up before it is made."""

    def __init__(self, model: PackedT5, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.ds_config = ds_config_for(config, self.world_size)
        self.zero_stage = zero_stage(self.ds_config)
        if self.zero_stage == 3:
            for parameter in model.external_parameters:
                deepspeed.zero.register_external_parameter(model, parameter)
        self._optimizer = build_optimizer(config.optimizer, model, self.ds_config)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=self._optimizer, config=self.ds_config)

    def forward_backward(
        self,
        loaded: LoadedStep,
        seed: int,
        wish: Callable[[], Wish],
        stopwatch: Stopwatch,
        beat: Callable[[str], None],
    ) -> StepLoss:
        """Gradients of one step, and its loss reduced over ranks together with the wish to stop.

        seed: of this step's dropout on this rank; a function of the position, so that a resumed run draws the same.
        wish: asked when the gradients are there. stopwatch: runs during forward passes. beat: told each phase that
        begins.
        """
        torch.manual_seed(seed)
        self._engine.train()
        totals = torch.zeros(2 * len(TRAINABLE_NAMES) + 2, dtype=torch.float64, device=self.device)
        scale = self.world_size / loaded.step.target_tokens
        last = len(loaded.micro_batches) - 1
        for i, batch in enumerate(loaded.micro_batches):
            self._engine.set_gradient_accumulation_boundary(i == last)
            beat("forward")
            with stopwatch:
                loss = self._engine(batch.to(self.device))
            beat("backward")
            self._engine.backward(loss.total * scale, scale_wrt_gas=False)
            totals[:-2] += torch.cat([loss.per_task.double(), loss.counts.double()])  # stays on the device: no wait
        beat("reduce")
        wished = wish()
        totals[-2], totals[-1] = wished is not Wish.GO_ON, wished is Wish.PERSON
        return self._reduce(totals)

    def optimizer_step(self, lr: float, *, skip: bool = False) -> float:
        """Moves the weights; the norm of the gradient before clipping.

        skip: drop the step's gradients and leave weights and moments as they are. So are gradients dropped that are not
        finite: by DeepSpeed itself, which gives an infinite norm, but for stage 0 in fp32, where it is done here.
        """
        plain_norm = self._plain_grad_norm()
        dropped = plain_norm is not None and not math.isfinite(plain_norm)
        self._optimizer.skip = skip or dropped  # type: ignore[attr-defined]
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()
        return float(self._engine.get_global_grad_norm() if plain_norm is None else plain_norm)

    def _plain_grad_norm(self) -> float | None:
        """Norm of the reduced gradients in stage 0 and fp32, where DeepSpeed does not tell it; else None."""
        if self.zero_stage > 0 or self.config.train.precision != "fp32":
            return None
        return float(
            torch.nn.utils.get_total_norm([p.grad for p in self._engine.module.parameters() if p.grad is not None])
        )

    @torch.no_grad()
    def evaluate(self, batch: PackedBatch) -> StepLoss:
        """Loss of a batch without dropout; every rank computes the same batch."""
        self._engine.eval()
        loss = self._engine(batch.to(self.device))
        totals = torch.cat([loss.per_task.double(), loss.counts.double(), loss.counts.new_zeros(2).double()])
        return self._reduce(totals / self.world_size)

    def save(self, folder: Path, tag: str) -> None:
        """Writes this rank's files to folder/tag, with DeepSpeed's own names."""
        self._engine.save_checkpoint(str(folder), tag=tag, save_latest=False)

    def load(self, folder: Path, tag: str) -> None:
        """Loads folder/tag, written by the same world size and ZeRO stage."""
        path, _ = self._engine.load_checkpoint(str(folder), tag=tag)
        if path is None:
            raise UserError("DeepSpeed could not load the checkpoint", str(folder / tag))

    def _reduce(self, totals: torch.Tensor) -> StepLoss:
        dist.all_reduce(totals)
        reduced = totals.cpu()
        n = len(TRAINABLE_NAMES)
        return StepLoss(reduced[:n], reduced[n : 2 * n], bool(reduced[-2] > 0), bool(reduced[-1] > 0))
