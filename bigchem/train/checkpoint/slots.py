"""Where a rank holds the parameters' fp32 weights and optimizer states, at any ZeRO stage."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Slot:
    """Where this rank holds part of a parameter: elements start .. start + numel lie at `offset` of `flat`, a tensor
    stepped by the optimizer."""

    name: str
    start: int
    numel: int
    flat: Tensor
    offset: int


def slots(engine: Any, stage: int) -> Iterator[Slot]:
    """This rank's slots in a DeepSpeed engine, without padding. A parameter of which it holds nothing has none, or an
    empty one."""
    optimizer, names = engine.optimizer, {id(p): name for name, p in engine.module.named_parameters()}
    if stage == 0:
        masters = getattr(optimizer, "fp32_groups", None)
        for i, group in enumerate(optimizer.fp16_groups if masters else optimizer.param_groups):
            parameters = group if masters else group["params"]
            for j, parameter in enumerate(parameters):
                flat = masters[i][j] if masters else parameter
                yield Slot(names[id(parameter)], 0, parameter.numel(), flat, 0)
        return
    flats = "single_partition_of_fp32_groups"
    if not hasattr(optimizer, flats):
        flats = "fp32_groups_flat_partition"  # of BF16_Optimizer, which DeepSpeed uses for stage 1 in bf16
    for parameter in engine.module.parameters():
        name = names[id(parameter)]
        if stage == 3:
            group, offset, numel = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = numel * optimizer._get_param_partition_rank(parameter)
            real = min(numel, max(0, parameter.ds_numel - start))  # the rest is padding
            yield Slot(name, start, real, optimizer.fp32_partitioned_groups_flat[group], offset)
        elif (mapping := parameter._hp_mapping) is not None:
            flat = getattr(optimizer, flats)[mapping.param_group_index]
            address = mapping.hp_fragment_address
            yield Slot(name, mapping.lp_fragment_address.start, address.numel, flat, address.start)
