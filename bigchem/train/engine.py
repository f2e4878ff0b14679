"""The DeepSpeed engine of a run, and one optimizer step through it.

DeepSpeed does sharding, optimizer state, offload and gradient reduction. The number of micro-batches varies by step, so
the accumulation boundary and the loss scale are set here. The loss is the sum of the step's token losses over its
target tokens, whatever the number of ranks and the accumulation.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist

from bigchem import ds_config
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep
from bigchem.ds_config import zero_stage
from bigchem.model.feed import feed
from bigchem.model.packed_batch import PackedBatch
from bigchem.model.t5 import PackedT5
from bigchem.train.checkpoint import reshard
from bigchem.train.checkpoint.ds_checkpoint_engine import BigchemCheckpointEngine
from bigchem.train.checkpoint.slots import slots
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.checkpoint.zero_layout import GROUP_NAMES, ZeroFiles, saved_groups
from bigchem.train.collectives import say
from bigchem.train.health.signals import StopRequest
from bigchem.train.health.step_guard import BadStep
from bigchem.train.optimizer import Scales, build_optimizer, layout_of

FLAGS = 4
"""Columns at the end of a reduced row: any rank is writing a checkpoint; any rank wants to stop; a user asked for it;
another attempt owns the run."""


@dataclass(frozen=True)
class StepLoss:
    """Token losses of one step over all ranks: sums and counts by task [tasks], float64 on the CPU; names of tasks."""

    sums: torch.Tensor
    counts: torch.Tensor
    tasks: tuple[str, ...]
    stop: bool = False
    """Whether any rank asked to stop."""
    by_user: bool = False
    """Whether a user asked for it."""
    disowned: bool = False
    """Whether another attempt owns the run now, or its folder is gone."""
    writing: bool = False
    """Whether any rank is still writing a checkpoint in the background."""

    @property
    def mean(self) -> float:
        """Loss per target token."""
        return float(self.sums.sum() / self.counts.sum())

    def by_task(self) -> dict[str, float]:
        """Mean loss of each task with tokens in the step."""
        return {n: float(self.sums[i] / self.counts[i]) for i, n in enumerate(self.tasks) if self.counts[i] > 0}


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: its loss, learning rate and gradient norm before clipping. bad: why it was skipped."""

    loss: StepLoss
    lr: float
    grad_norm: float
    bad: BadStep | None = None


class Engine:
    """A PackedT5 under DeepSpeed. Needs an initialized process group.

    tasks: names by the numbers in a batch's task_ids; as many as the model counts.
    """

    _scales: Scales | None = None
    """Of adamw_rms."""

    def __init__(
        self, model: PackedT5, config: RunConfig, device: torch.device, tasks: Sequence[str] | None = None
    ) -> None:
        self.config, self.device = config, device
        self._send = feed(device)
        self.tasks = tuple(tasks or map(str, range(model.num_tasks)))
        model.num_tasks = len(self.tasks)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        completed = ds_config.completed(config, self.world_size)
        self.ds_config = completed.table
        for note in completed.notes:
            say(f"{config.train.ds_config}: {note}")
        self.zero_stage = zero_stage(self.ds_config)
        if self.zero_stage == 3:
            for parameter in model.external_parameters:
                deepspeed.zero.register_external_parameter(model, parameter)
        self._optimizer = build_optimizer(config.optimizer, model, self.ds_config)
        names = {id(p): name for name, p in model.named_parameters()}
        self._group_names = [[names[id(p)] for p in group["params"]] for group in self._optimizer.param_groups]
        # In bf16 at stage 0 initialize() takes an optimizer step, with decay.
        self._optimizer.skip = True  # type: ignore[attr-defined]
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=self._optimizer, config=self.ds_config)
        if config.optimizer.kind == "adamw_rms":
            self._scales = Scales(model, sharded=self.zero_stage == 3)
            self._optimizer.layout = layout_of(slots(self._engine, self.zero_stage))  # type: ignore[attr-defined]
        whole = self.zero_stage == 3 or (self.zero_stage == 0 and config.train.precision == "fp32")
        self._files = BigchemCheckpointEngine([] if whole else names.values(), direct=config.checkpoint.direct_io)
        self._engine.checkpoint_engine = self._files
        self._engine._copy_recovery_script = lambda save_path: None  # its script fails on T5's tied embedding

    @property
    def has_moments(self) -> bool:
        """Whether the optimizer's moments exist: its first step or a loaded checkpoint creates them."""
        return any(self._optimizer.state.values())

    @property
    def module(self) -> PackedT5:
        """The wrapped model."""
        module: PackedT5 = self._engine.module
        return module

    @property
    def zero_optimizer(self) -> torch.optim.Optimizer:
        """DeepSpeed's optimizer, which wraps ours where the stage needs one."""
        optimizer: torch.optim.Optimizer = self._engine.optimizer
        return optimizer

    def optimizer_states(self) -> list[dict[str, torch.Tensor]]:
        """The optimizer's state of each of its tensors on this rank."""
        return list(self._optimizer.state.values())

    def forward_backward(
        self,
        loaded: LoadedStep,
        seed: int,
        stop: Callable[[], StopRequest] = lambda: StopRequest.NONE,
        stopwatch: AbstractContextManager[object] = nullcontext(),  # noqa: B008 - it has no state
        beat: Callable[[str], None] = lambda phase: None,
    ) -> StepLoss:
        """Computes the gradients of one step. Returns its loss, reduced over ranks along with the stop requests.

        seed: for this step's dropout; a function of the position, so a resumed run draws the same, and the same on
        every rank, because each token's mask is its own.
        stop: called after the backward passes. stopwatch: runs during forward passes. beat: called with each new phase.
        """
        torch.manual_seed(seed ^ self.rank)  # only flash_attn's dropout draws from torch's generator
        if self._scales is not None:
            self._scales.start()
        self._engine.train()
        totals = torch.zeros(2 * len(self.tasks) + FLAGS, dtype=torch.float64, device=self.device)
        scale = self.world_size / loaded.step.target_tokens
        last = len(loaded.micro_batches) - 1
        for i, batch in enumerate(loaded.micro_batches):
            self._engine.set_gradient_accumulation_boundary(i == last)
            beat("forward")
            with stopwatch:
                loss = self._engine(self._on_device(batch), seed)
            beat("backward")
            self._engine.backward(loss.total * scale, scale_wrt_gas=False)
            totals[:-FLAGS] += torch.cat([loss.per_task.double(), loss.counts.double()])  # stays on the device: no wait
        beat("reduce")
        if self._files.writing:
            totals[-4] = 1
        request = stop()
        if request is not StopRequest.NONE:
            totals[-3], totals[-2], totals[-1] = 1, request is StopRequest.USER, request is StopRequest.DISOWNED
        return self._reduce(totals)

    def plan(self, batch: PackedBatch) -> PackedBatch:
        """The batch with what attention derives from its lengths. Pure, for the loader's thread: the batches that the
        other methods take are planned there or here."""
        return batch if batch.work is not None else self.module.plan(batch, self.device)

    def _on_device(self, batch: PackedBatch) -> PackedBatch:
        return self._send(self.plan(batch))

    def accumulate(self, batch: PackedBatch) -> None:
        """Computes one micro-batch's gradients without ending the step, to measure the memory in use there."""
        self._engine.train()
        self._engine.set_gradient_accumulation_boundary(False)
        self._engine.backward(self._engine(self._on_device(batch)).total, scale_wrt_gas=False)

    def optimizer_step(self, lr: float, *, skip: bool = False) -> float:
        """Updates the weights. Returns the gradient norm before clipping.

        skip: drop the gradients and leave weights and moments unchanged. Non-finite gradients are dropped as well: by
        DeepSpeed, which returns an infinite norm, or here at stage 0 in fp32.
        """
        plain_norm = self._plain_grad_norm()
        dropped = plain_norm is not None and not math.isfinite(plain_norm)
        self._optimizer.skip = skip or dropped  # type: ignore[attr-defined]
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        if self._scales is not None:
            self._optimizer.scales = self._scales.read()  # type: ignore[attr-defined]
        self._engine.step()
        return float(self._engine.get_global_grad_norm() if plain_norm is None else plain_norm)

    def _plain_grad_norm(self) -> float | None:
        """Norm of the reduced gradients at stage 0 in fp32, where DeepSpeed does not report it; else None."""
        if self.zero_stage > 0 or self.config.train.precision != "fp32":
            return None
        return float(
            torch.nn.utils.get_total_norm([p.grad for p in self._engine.module.parameters() if p.grad is not None])
        )

    @torch.no_grad()
    def evaluate(self, batch: PackedBatch) -> StepLoss:
        """Loss of a batch without dropout. Every rank computes the same batch."""
        self._engine.eval()
        loss = self._engine(self._on_device(batch))
        totals = torch.cat([loss.per_task.double(), loss.counts.double(), loss.counts.new_zeros(FLAGS).double()])
        return self._reduce(totals / self.world_size)

    @torch.no_grad()
    def validate(self, share: Sequence[PackedBatch], number: int) -> StepLoss:
        """Loss of `number` micro-batches without dropout. share: this rank's; the i-th is number i * world_size + rank
        of all. Every rank has equally many, so those beyond `number` are padding and not counted.

        One rank sums each micro-batch, and the sums are added in order: the result does not depend on the number of
        ranks.
        """
        self._engine.eval()
        columns = 2 * len(self.tasks) + FLAGS
        table = torch.zeros(len(share), self.world_size, columns, dtype=torch.float64, device=self.device)
        for i, batch in enumerate(share):
            loss = self._engine(self._on_device(batch))
            table[i, self.rank, :-FLAGS] = torch.cat([loss.per_task.double(), loss.counts.double()])
        dist.all_reduce(table)
        return self._totals(table.flatten(0, 1)[:number].cpu().sum(dim=0))

    @torch.no_grad()
    def next_tokens(self, batch: PackedBatch) -> list[int]:
        """The most likely token at the last position of each example's target, given the labels before it. Every rank
        passes the same batch and gets rank 0's result."""
        self._engine.eval()
        module, batch = self.module, self._on_device(batch)
        head = [] if module.shape.tied else list(module.lm_head.parameters())
        # Called through the module, so that ZeRO-3's hooks gather the weights.
        module.forward = module.logits  # type: ignore[method-assign,assignment]
        try:
            with deepspeed.zero.GatheredParameters(head, enabled=self.zero_stage == 3):
                logits = module(batch)
        finally:
            del module.forward
        tokens = logits[batch.target_cu_seqlens[1:].long() - 1].argmax(dim=-1)
        dist.broadcast(tokens, src=0)  # ranks could break near-ties differently
        return list(tokens.tolist())

    def close(self) -> None:
        """Frees DeepSpeed's hooks and buffers, for a process that makes another engine."""
        self._engine.destroy()

    def save(self, folder: Path, tag: str, *, background: bool = False) -> BigchemCheckpointEngine:
        """Writes this rank's files to folder/tag, under DeepSpeed's names. The result lists them, or has the error.
        background: only copies them, and writes while training goes on; the result counts after its `finish`."""
        self._files.begin(background=background)
        names = {GROUP_NAMES: self._group_names}
        self._engine.save_checkpoint(str(folder), tag=tag, save_latest=False, client_state=names)
        self._files.write_staged()
        return self._files

    def load(self, checkpoint: Path, manifest: Manifest) -> bool:
        """Loads a published checkpoint. Returns whether it was resharded, because this engine has another world size,
        stage, precision or grouping of parameters. Learning rate, decay and the like come from the configuration."""
        precision = self.config.train.precision
        same_ranks = manifest.world_size == self.world_size or self.zero_stage == 0  # stage 0 shards nothing
        same_layout = (manifest.zero_stage, manifest.precision) == (self.zero_stage, precision) and same_ranks
        if not same_layout or saved_groups(checkpoint, manifest) != self._group_names:
            reshard.convert(self._engine, self.zero_stage, checkpoint, manifest, regrouped=same_layout)
            return True
        groups = self._engine.optimizer.param_groups
        configured = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        path, _ = self._engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name, load_module_strict=False)
        if path is None:
            raise UserError("DeepSpeed could not load the checkpoint", str(checkpoint))
        for group, fields in zip(self._engine.optimizer.param_groups, configured, strict=True):
            group.update(fields)
        reshard.place_steps(self._optimizer)  # follows the configuration's `fused`, not the checkpoint's
        if self.zero_stage < 3:  # at stage 3 no rank has whole weights
            reshard.restore_weights(self._engine, ZeroFiles(checkpoint, manifest))
        return False

    def _reduce(self, totals: torch.Tensor) -> StepLoss:
        dist.all_reduce(totals)
        return self._totals(totals.cpu())

    def _totals(self, reduced: torch.Tensor) -> StepLoss:
        n = len(self.tasks)
        writing, stop, by_user, disowned = (bool(flag > 0) for flag in reduced[-FLAGS:])
        return StepLoss(reduced[:n], reduced[n : 2 * n], self.tasks, stop, by_user, disowned, writing)
