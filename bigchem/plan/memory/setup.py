"""Settings that decide a rank's memory, besides the model and the batch. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of an element, by type."""


@dataclass(frozen=True)
class MemorySetup:
    """zero: the DeepSpeed configuration's `zero_optimization` table. device: "cpu" or "cuda". grad_accum_dtype: type in
    which gradients are accumulated, from stage 1 on. communication_dtype: type in which they are sent; None: the
    weights' type. tf32: products in fp32 are computed in TF32, which changes the speed alone."""

    zero: Mapping[str, object]
    world_size: int = 1
    precision: str = "bf16"
    tf32: bool = False
    optimizer: str = "adamw"
    ema: bool = False
    dropout: bool = True
    checkpoint_activations: bool = False
    device: str = "cuda"
    grad_accum_dtype: str = "fp32"
    communication_dtype: str | None = None

    def with_ds_config(self, table: Mapping[str, Any]) -> MemorySetup:
        """This setup with another completed DeepSpeed configuration (bigchem/ds_config)."""
        types = table.get("data_types", {})
        return replace(
            self,
            zero=table.get("zero_optimization", {}),
            grad_accum_dtype=types.get("grad_accum_dtype") or self.precision,
            communication_dtype=table.get("communication_data_type"),
        )

    @property
    def stage(self) -> int:
        """The ZeRO stage."""
        return int(str(self.zero.get("stage", 0)))

    @property
    def element(self) -> int:
        """Bytes of a weight or an activation."""
        return BYTES[self.precision]

    @property
    def summed(self) -> int:
        """Bytes of an accumulated gradient's element. Stage 0 accumulates in the weights' type."""
        return BYTES[self.grad_accum_dtype] if self.stage else self.element

    @property
    def sent(self) -> int:
        """Bytes of an element of a gradient in transit."""
        return BYTES[self.communication_dtype or self.precision]

    @property
    def bf16_optimizer(self) -> bool:
        """Whether DeepSpeed uses its BF16_Optimizer instead of ZeRO's stage 1: for bf16 with fp32 accumulation."""
        types = self.precision, self.grad_accum_dtype
        return self.stage == 1 and types == ("bf16", "fp32") and not self.offloaded("optimizer")

    @property
    def reduces_to_one(self) -> bool:
        """Whether stages 1 and 2 reduce each gradient to the rank that owns it, instead of an all-reduce."""
        scatters = self.stage in (1, 2) and not self.bf16_optimizer and self.zero.get("reduce_scatter", True)
        return bool(scatters) and not self.zero.get("use_multi_rank_bucket_allreduce", True)

    @property
    def hpz(self) -> int:
        """Ranks among which a second copy of the weights is partitioned (ZeRO++'s hpZ): stage 3's
        `zero_hpz_partition_size`. 1: none."""
        return self.size("zero_hpz_partition_size", 1) if self.stage == 3 else 1

    def offload(self, what: str) -> str:
        """Where the states `what` ("optimizer", "param") are: "none" (the device), "cpu" or "nvme"."""
        table = self.zero.get(f"offload_{what}")
        return str(table.get("device", "none")) if isinstance(table, Mapping) else "none"

    def offloaded(self, what: str) -> bool:
        """Whether the states `what` are offloaded."""
        return self.offload(what) != "none"

    def pinned(self, what: str) -> bool:
        """Whether the host memory of the offloaded states `what` is pinned."""
        table = self.zero.get(f"offload_{what}")
        return isinstance(table, Mapping) and bool(table.get("pin_memory", False))

    def size(self, name: str, default: int) -> int:
        """A number of elements in the zero table."""
        found = self.zero.get(name, default)
        return int(found) if isinstance(found, (int, float)) else default
