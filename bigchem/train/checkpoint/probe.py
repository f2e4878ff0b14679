"""A few fixed examples whose loss is recorded with every checkpoint, to prove a resume and an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from bigchem.data.loader import Loader
from bigchem.data.packing import pack
from bigchem.model.packed_batch import PackedBatch

EXAMPLES = 4
"""Each passes through every weight but the embedding's other rows, and costs every save and every export its time."""
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}
"""Largest relative difference between two losses of the same weights, by the coarser of the two precisions: across
devices and kernels, and against transformers in fp32."""


@dataclass(frozen=True)
class Probe:
    """Token ids of each example, with end tokens, and its task."""

    sources: list[list[int]]
    targets: list[list[int]]
    task_ids: list[int]

    @staticmethod
    def of(loader: Loader) -> Probe:
        """The first examples in the run's order, the same on every rank."""
        step = loader.plan.steps.at(0)
        batch = loader.read(step, np.arange(min(EXAMPLES, len(step.rows))))
        return Probe(
            unpacked(batch.source_ids, batch.source_cu_seqlens),
            unpacked(batch.target_ids, batch.target_cu_seqlens),
            batch.task_ids.tolist(),
        )

    def batch(self) -> PackedBatch:
        """The examples, packed."""
        return pack([np.array(s) for s in self.sources], [np.array(t) for t in self.targets], np.array(self.task_ids))

    @staticmethod
    def recorded(table: Mapping[str, Any]) -> Probe:
        """The examples of a manifest's probe."""
        return Probe(table["sources"], table["targets"], [0] * len(table["sources"]))

    def with_loss(self, loss: float) -> dict[str, Any]:
        """The manifest's entry: the examples and the engine's loss per target token."""
        return {"sources": self.sources, "targets": self.targets, "task_ids": self.task_ids, "loss": loss}


def agree(loss: float, recorded: float, *precisions: str) -> bool:
    """Whether two probe losses can come from the same weights. precisions: in which they were computed."""
    tolerance = max(TOLERANCE[precision] for precision in precisions)
    return abs(loss - recorded) <= tolerance * max(1.0, abs(recorded))  # NaN never matches


def unpacked(ids: torch.Tensor, cu_seqlens: torch.Tensor) -> list[list[int]]:
    """Token ids of each example of one side of a packed batch."""
    bounds = cu_seqlens.tolist()
    return [ids[a:b].tolist() for a, b in pairwise(bounds)]
