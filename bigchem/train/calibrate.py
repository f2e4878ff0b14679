"""A few real steps on the available ranks, to compare the plan with: state bytes, peak memory, seconds."""

import gc
import time
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from bigchem.config import RunConfig
from bigchem.data.ragged import IntArray
from bigchem.model import attention
from bigchem.model.presets import Shape
from bigchem.model.t5 import PackedT5
from bigchem.plan.memory.states import States, states
from bigchem.plan.memory.worst_case import filled, setup_of
from bigchem.train import worst_case
from bigchem.train.engine import Engine
from bigchem.train.model_factory import partitioning_of

STEPS = 3
"""Timed steps. They follow the worst-case batch, which pays for one-time compilation and allocation."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_GRADIENTS = [
    *("all_grad_tensors", "averaged_gradients", "fp32_groups_gradients_flat", "grad_partitions_flat_buffer"),
    "accumulated_grads_in_cpu",
]
_MASTERS = [
    *("fp32_groups", "single_partition_of_fp32_groups", "fp32_groups_flat_partition"),
    "fp32_partitioned_groups_flat",
]
_STAGING = [
    *("param_buffer_of_bit16_for_cpu_offload_groups", "temp_grad_buffer_for_cpu_offload"),
    "temp_grad_buffer_for_gpu_offload",
]
"""Attributes of DeepSpeed 0.19's optimizers; each optimizer has some of them."""


@dataclass(frozen=True)
class Case:
    """What to measure: a model of `shape` on examples as long as `longest` [2], with the DeepSpeed configuration and
    the micro-batch of `config`."""

    config: RunConfig
    shape: Shape
    longest: IntArray


def measure(case: Case, device: torch.device) -> list[dict[str, Any]]:
    """Rows of (ds_config, micro_tokens, checkpoint_activations, item, predicted, measured), in bytes, or tokens per
    second. Collective. Each figure is the largest over ranks.

    On a GPU the peak is what torch has allocated since before the engine was made; on a CPU the growth of resident
    memory in the first step.
    """
    config, data = case.config, case.config.data
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    engine = Engine(_model(case, device), config, device)
    lengths = filled(case.longest, data.micro_tokens)
    peak = worst_case.compute(engine, config, lengths, case.shape)
    step = worst_case.step_of(lengths, case.shape.vocab_size, 1, engine.world_size)
    seconds = []
    for seed in range(STEPS):
        begun = time.monotonic()
        engine.forward_backward(step, seed)
        engine.optimizer_step(0.0)
        seconds.append(time.monotonic() - begun)
    engine.accumulate(step.micro_batches[0])
    measured = measured_states(engine)
    setup = setup_of(config, engine.ds_config, engine.world_size, device.type)
    planned = States(*map(sum, zip(*states(case.shape, setup, engine.rank), strict=True)))
    rows = [(name, getattr(planned, name), getattr(measured, name)) for name in States._fields]
    rows += [("peak of a step", peak.plan, peak.peak - before)]
    speed = int(lengths.sum()) * engine.world_size / median(seconds)
    figures = _largest([value for row in rows for value in row[1:]], device)
    key = (config.train.ds_config, data.micro_tokens, config.train.checkpoint_activations)
    found = [_row(key, name, *figures[2 * i : 2 * i + 2]) for i, (name, *_) in enumerate(rows)]
    engine.close()
    del engine
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return [*found, _row(key, "tokens/s", None, speed)]


def measured_states(engine: Engine) -> States:
    """Bytes of this rank's states in DeepSpeed's tensors, device and host together, each storage counted once. Call it
    in the middle of a step: after the backward pass of a micro-batch that is not the last."""
    zero: Any = engine.zero_optimizer
    parameters: list[Any] = list(engine.module.parameters())
    masters = [getattr(zero, name, None) for name in _MASTERS]
    found = _tensors(masters)
    own = [getattr(zero, name, None) for name in _GRADIENTS]
    gradients = [own, [(p.grad, getattr(p, "grad_accum", None)) for p in parameters], [m.grad for m in found]]
    moments = [[v for k, v in state.items() if k != "step"] for state in engine.optimizer_states()]
    return States(
        weights=_bytes([p.ds_tensor if engine.zero_stage == 3 else p.data for p in parameters]),
        gradients=_bytes(gradients),
        masters=_bytes(masters),
        moments=_bytes(moments),
        hpz_weights=_bytes([getattr(p, "ds_secondary_tensor", None) for p in parameters]),
        staging=_bytes([getattr(zero, name, None) for name in _STAGING]),
    )


def _row(key: tuple[str, int, bool], item: str, predicted: float | None, measured: float) -> dict[str, Any]:
    ds_config, micro_tokens, checkpointed = key
    case = {"ds_config": ds_config, "micro_tokens": micro_tokens, "checkpoint_activations": checkpointed}
    return {**case, "item": item, "predicted": predicted, "measured": measured}


def _model(case: Case, device: torch.device) -> PackedT5:
    train, model = case.config.train, case.config.model
    torch.manual_seed(case.config.seed)
    backends = attention.choose_backends(
        model.attention, attention.Setting(device, DTYPES[train.precision], case.shape.d_kv, model.dropout)
    )
    checkpointed = train.checkpoint_activations
    with partitioning_of(case.config, device) or nullcontext():
        return PackedT5(case.shape, dropout=model.dropout, backends=backends, checkpoint_activations=checkpointed)


def _largest(values: list[float], device: torch.device) -> list[int]:
    """Each value's maximum over ranks."""
    table = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(table, op=dist.ReduceOp.MAX)
    return [int(value) for value in table.tolist()]


def _bytes(nested: Any) -> int:
    """Bytes of the storages of all tensors in nested lists and dictionaries, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(nested)}
    return sum(storages.values())


def _tensors(nested: Any) -> list[torch.Tensor]:
    if isinstance(nested, torch.Tensor):
        return [nested]
    if isinstance(nested, dict):
        nested = list(nested.values())
    return [t for item in nested for t in _tensors(item)] if isinstance(nested, list | tuple) else []
