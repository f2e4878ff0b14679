"""The contract between the data and the model: examples packed without padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """B examples packed without padding.

    source_ids int64 [Ts]; target_ids int64 [Tt]: labels including the end token, -100 where nothing is learned;
    *_cu_seqlens int32 [B + 1]: example i is rows cu[i]..cu[i + 1] (none if its length is zero); task_ids int64 [B];
    *_hashes int32 [Ts], [Tt]: of each token, from `dropout.token_hashes`, so that dropout does not depend on the
    packing; *_lens int64 [B]: the lengths as numpy arrays, on the host wherever the batch is; work: by kind of
    attention, what its backend plans from the lengths (PackedT5.plan), None if nothing was planned.
    """

    source_ids: Tensor
    target_ids: Tensor
    source_cu_seqlens: Tensor
    target_cu_seqlens: Tensor
    task_ids: Tensor
    source_hashes: Tensor
    target_hashes: Tensor
    source_lens: np.ndarray
    target_lens: np.ndarray
    work: Mapping[str, Sequence[Tensor]] | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> PackedBatch:
        """The batch with every tensor changed, those of `work` included, always in the same order."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        if self.work is not None:
            values["work"] = {kind: [change(x) for x in lists] for kind, lists in self.work.items()}
        return PackedBatch(**values)

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of `map`."""
        found: list[Tensor] = []
        self.map(lambda x: found.append(x) or x)  # type: ignore[func-returns-value]
        return found

    def to(self, device: torch.device | str) -> PackedBatch:
        """A copy of the batch on another device. On a GPU every tensor waits: training uses `bigchem.model.feed`."""
        return self.map(lambda x: x.to(device))
