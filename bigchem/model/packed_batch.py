"""The contract between the data and the model: examples packed without padding."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """B examples packed without padding.

    source_ids int64 [Ts]; target_ids int64 [Tt]: labels including the end token, -100 where nothing is learned;
    *_cu_seqlens int32 [B + 1]: example i is rows cu[i]..cu[i + 1] (none if its length is zero); max_*_len: longest
    length in tokens; task_ids int64 [B]; *_hashes int32 [Ts], [Tt]: of each token, from `dropout.token_hashes`, so that
    dropout does not depend on the packing.
    """

    source_ids: Tensor
    target_ids: Tensor
    source_cu_seqlens: Tensor
    target_cu_seqlens: Tensor
    max_source_len: int
    max_target_len: int
    task_ids: Tensor
    source_hashes: Tensor
    target_hashes: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        """A copy of the batch on another device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {n: v.to(device, non_blocking=non_blocking) for n, v in values.items() if isinstance(v, Tensor)}
        return PackedBatch(**{**values, **tensors})
