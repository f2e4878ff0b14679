"""What decides how much a rank holds, besides the model and the batch. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Setup:
    """zero: the `zero_optimization` table of the DeepSpeed configuration. device: "cpu" or "cuda"."""

    zero: Mapping[str, object]
    world_size: int = 1
    precision: str = "bf16"
    optimizer: str = "adamw"
    ema: bool = False
    dropout: bool = True
    checkpoint_activations: bool = False
    device: str = "cuda"

    @property
    def stage(self) -> int:
        """The ZeRO stage."""
        return int(str(self.zero.get("stage", 0)))

    @property
    def element(self) -> int:
        """Bytes of a weight and of an activation."""
        return 4 if self.precision == "fp32" else 2

    def offload(self, what: str) -> str:
        """Where the states `what` ("optimizer", "param") are kept: "none" (the device), "cpu" or "nvme"."""
        table = self.zero.get(f"offload_{what}")
        return str(table.get("device", "none")) if isinstance(table, Mapping) else "none"

    def offloaded(self, what: str) -> bool:
        """Whether the states `what` are kept off the device."""
        return self.offload(what) != "none"

    def pinned(self, what: str) -> bool:
        """Whether host memory of the offloaded states `what` is page-locked."""
        table = self.zero.get(f"offload_{what}")
        return isinstance(table, Mapping) and bool(table.get("pin_memory", False))

    def size(self, name: str, default: int) -> int:
        """A number of elements that the zero table names."""
        found = self.zero.get(name, default)
        return int(found) if isinstance(found, (int, float)) else default
