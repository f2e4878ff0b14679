"""A few real steps on the ranks that there are, and what the plan says of them: states, peak, seconds."""

from __future__ import annotations

import gc
import time
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
from bigchem.train.held import measured_states

STEPS = 3
"""Timed, after the worst-case batch, which pays for what is compiled and allocated once."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Case:
    """One configuration to be measured: of `config` with its DeepSpeed configuration and micro-batch, a model of this
    shape on examples as long as `longest` [2]."""

    config: RunConfig
    shape: Shape
    longest: IntArray


def measure(case: Case, device: torch.device) -> list[dict[str, Any]]:
    """Rows of (ds_config, micro_tokens, checkpointing, item, told, seen): bytes and tokens per second. Every rank calls
    it, in its process group; figures are the largest of any rank's.

    On a GPU the peak is what torch handed out since before the engine was made; on a CPU what resident memory grew by
    in the first step.
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
    seen = measured_states(engine)
    setup = setup_of(config, engine.ds_config, engine.world_size, device.type)
    told = States(*map(sum, zip(*states(case.shape, setup, engine.rank), strict=True)))
    rows = [(name, getattr(told, name), getattr(seen, name)) for name in States._fields]
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


def _row(key: tuple[str, int, bool], item: str, told: float | None, seen: float) -> dict[str, Any]:
    ds_config, micro_tokens, checkpointed = key
    where = {"ds_config": ds_config, "micro_tokens": micro_tokens, "checkpoint_activations": checkpointed}
    return {**where, "item": item, "told": told, "seen": seen}


def _model(case: Case, device: torch.device) -> PackedT5:
    train, model = case.config.train, case.config.model
    torch.manual_seed(case.config.seed)
    backends = attention.choose_backends(
        model.attention, attention.Setting(device, DTYPES[train.precision], case.shape.d_kv)
    )
    checkpointed = train.checkpoint_activations
    return PackedT5(case.shape, dropout=model.dropout, backends=backends, checkpoint_activations=checkpointed)


def _largest(values: list[float], device: torch.device) -> list[int]:
    """Each value's maximum over ranks."""
    table = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(table, op=dist.ReduceOp.MAX)
    return [int(value) for value in table.tolist()]
