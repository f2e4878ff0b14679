"""GPUs that hardware.py does not list, from a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bigchem.base import toml
from bigchem.plan.speed.hardware import Gpu

Amount = Annotated[float, Field(gt=0)]


class GpuFile(toml.Section):
    """A GPU's data sheet, in units of 10^9 and 10^12."""

    name: str
    """Name in tables."""
    memory_gb: Amount
    """Memory (10^9 bytes)."""
    memory_gb_per_s: Amount
    """Memory bandwidth (10^9 bytes per second)."""
    tflops_fp32: Amount
    """Dense 10^12 operations per second in fp32."""
    tflops_bf16: Amount | None = None
    """The same in bf16; omitted: no hardware support."""
    tflops_fp16: Amount | None = None
    """The same in fp16; omitted: as in bf16."""
    link_gb_per_s: Amount
    """Bandwidth to other GPUs of the node, one way (10^9 bytes per second)."""
    pcie_gb_per_s: Amount = 32.0
    """Bandwidth to the host, one way, for offload (10^9 bytes per second). The default is PCIe 4.0's."""
    between_gb_per_s: Amount | None = None
    """Bandwidth from a node to others (10^9 bytes per second), unless --interconnect is given."""
    watts: Amount | None = None
    """Maximum power (TDP); omitted: no energy estimate."""


def load(path: Path) -> tuple[Gpu, float | None]:
    """The GPU, and between_gb_per_s in bytes per second if given. UserError for a missing, unknown or wrong field."""
    read = toml.load(GpuFile, path)
    peaks = {"fp32": read.tflops_fp32, "bf16": read.tflops_bf16, "fp16": read.tflops_fp16 or read.tflops_bf16}
    found = Gpu(
        device_name=read.name,
        memory=1e9 * read.memory_gb,
        memory_bandwidth=1e9 * read.memory_gb_per_s,
        link=1e9 * read.link_gb_per_s,
        pcie=1e9 * read.pcie_gb_per_s,
        watts=read.watts,
        peaks={precision: 1e12 * peak for precision, peak in peaks.items() if peak},
    )
    return found, None if read.between_gb_per_s is None else 1e9 * read.between_gb_per_s
