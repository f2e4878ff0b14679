"""GPUs and interconnects: memory, bandwidths, and their names on the command line. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bigchem.base import toml
from bigchem.base.errors import UserError, unknown
from bigchem.model.flops import peak_flops, peak_of


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet.

    device_name: torch's, by which model/flops.py finds its peak. memory: bytes. memory_bandwidth: bytes per second.
    link: bytes per second to other GPUs of its node, one way: half of NVLink's two-way figure, or PCIe's. pcie: to the
    host, one way. watts: maximum power (TDP); None: unknown. peaks: dense operations per second by precision, for a GPU
    that model/flops.py does not list.
    """

    device_name: str
    memory: float
    memory_bandwidth: float
    link: float
    pcie: float
    watts: float | None = None
    peaks: Mapping[str, float] | None = None

    def peak(self, precision: str, *, tf32: bool = False) -> float:
        """Dense operations per second, as in model/flops.py; 0 if unknown."""
        if self.peaks is not None:
            return peak_of(self.peaks, precision, tf32=tf32) or 0.0
        return peak_flops(self.device_name, precision, tf32=tf32) or 0.0


_GEN3, _GEN4, _GEN5 = 16e9, 32e9, 64e9
"""PCIe 3.0, 4.0 and 5.0 x16, one way."""

GPUS = {
    "v100-16": Gpu("Tesla V100-SXM2-16GB", 16e9, 900e9, 150e9, _GEN3, 300),
    "v100-32": Gpu("Tesla V100-SXM2-32GB", 32e9, 900e9, 150e9, _GEN3, 300),
    "a100-40": Gpu("NVIDIA A100-SXM4-40GB", 40e9, 1555e9, 300e9, _GEN4, 400),
    "a100-80": Gpu("NVIDIA A100-SXM4-80GB", 80e9, 2039e9, 300e9, _GEN4, 400),
    "a10": Gpu("NVIDIA A10", 24e9, 600e9, _GEN4, _GEN4, 150),
    "a6000": Gpu("NVIDIA RTX A6000", 48e9, 768e9, _GEN4, _GEN4, 300),
    "l40s": Gpu("NVIDIA L40S", 48e9, 864e9, _GEN4, _GEN4, 350),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 80e9, 3350e9, 450e9, _GEN5, 700),
    "h100-pcie": Gpu("NVIDIA H100 PCIe", 80e9, 2000e9, _GEN5, _GEN5, 350),
    "h200": Gpu("NVIDIA H200", 141e9, 4800e9, 450e9, _GEN5, 700),
    "b200": Gpu("NVIDIA B200", 180e9, 7700e9, 900e9, _GEN5, 1000),
    "mi300x": Gpu("AMD Instinct MI300X", 192e9, 5300e9, 448e9, _GEN5, 750),
    "rtx4090": Gpu("NVIDIA GeForce RTX 4090", 24e9, 1008e9, _GEN4, _GEN4, 450),
}
"""NVIDIA's data sheets: V100 (SXM2; NVLink 300 GB/s both ways), A100 (SXM; 600 GB/s), A10, RTX A6000 (its NVLink bridge
joins two only, so PCIe), L40S, H100 (SXM: 900 GB/s; PCIe), H200, DGX B200 (an eighth of 1,440 GB and of 62 TB/s; NVLink
1.8 TB/s); Ada white paper (RTX 4090). AMD's data sheet of the MI300X: seven Infinity Fabric links of 128 GB/s both
ways. watts: "max TDP" or "max power consumption" of the same sheets. Peaks: model/flops.py."""

INTERCONNECTS = {
    "ib-hdr": 25e9,
    "ib-hdr-x8": 200e9,
    "ib-ndr": 50e9,
    "ib-ndr-x8": 400e9,
    "ethernet-10": 1.25e9,
    "ethernet-25": 3.125e9,
    "ethernet-100": 12.5e9,
}
"""Line rates, in bytes per second that a node sends. InfiniBand HDR 200 Gbit/s and NDR 400 Gbit/s per port; x8: one
port per GPU, as in DGX A100 and DGX H100."""


def interconnect(given: str, gpu: Gpu, gpus: int) -> float:
    """Bytes per second between nodes: a name of INTERCONNECTS, nvlink (nodes joined by NVLink switches), or GB/s."""
    if given == "nvlink":
        return gpu.link * gpus
    if re.fullmatch(r"\d+(\.\d+)?", given) and float(given) > 0:
        return float(given) * 1e9
    if given not in INTERCONNECTS:
        unknown("interconnect", given, [*INTERCONNECTS, "nvlink", "a number of GB/s"], "--interconnect")
    return INTERCONNECTS[given]


def read_bytes(text: str, where: str) -> float:
    """80GB, 79.1GiB or 80 (GB): bytes. UserError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB|TB|TiB|)\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise UserError(f"cannot read '{text}'", where, "write 80GB (10^9 bytes) or 79.1GiB (2^30 bytes)")
    units = {"": 1e9, "gb": 1e9, "gib": 2.0**30, "tb": 1e12, "tib": 2.0**40}
    return float(found[1]) * units[found[2].lower()]


def gpu(name: str) -> Gpu:
    """A GPU by its name in GPUS; UserError if unknown."""
    if name not in GPUS:
        unknown("GPU", name, [*GPUS, "a .toml file"], "--gpu")
    return GPUS[name]


Amount = Annotated[float, Field(gt=0)]


class GpuFile(toml.Section):
    """The data sheet of a GPU that GPUS does not list, from a TOML file, in units of 10^9 and 10^12."""

    name: str
    """Name in tables."""
    memory_gb: Amount
    """Memory (10^9 bytes)."""
    memory_gb_per_s: Amount
    """Memory bandwidth (10^9 bytes per second)."""
    tflops_fp32: Amount
    """Dense 10^12 operations per second in fp32."""
    tflops_tf32: Amount | None = None
    """The same in TF32; omitted: no hardware support, and fp32 runs have fp32's speed."""
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


def load_gpu(path: Path) -> tuple[Gpu, float | None]:
    """The GPU, and between_gb_per_s in bytes per second if given. UserError for a missing, unknown or wrong field."""
    read = toml.load(GpuFile, path)
    halves = {"bf16": read.tflops_bf16, "fp16": read.tflops_fp16 or read.tflops_bf16}
    peaks = {"fp32": read.tflops_fp32, "tf32": read.tflops_tf32, **halves}
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
