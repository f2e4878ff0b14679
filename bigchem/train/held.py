"""What DeepSpeed holds of a model's states on this rank: the tensors themselves, to compare the plan with."""

from __future__ import annotations

from typing import Any

import torch

from bigchem.plan.memory.states import States
from bigchem.train.engine import Engine

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
"""Where DeepSpeed 0.19's optimizers keep them; each has some of these."""


def measured_states(engine: Engine) -> States:
    """Bytes of this rank's states, on device and host together, each storage counted once. In the middle of a step:
    after the backward pass of a micro-batch that is not its last."""
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
