"""What the ranks of a job have found out about their machines: facts, and how they are named. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bigchem.launch.rendezvous.members import ranges

SLOWDOWNS = {
    "clocks_throttle_reasons.hw_thermal_slowdown": "too hot",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "power brake",
    "clocks_throttle_reasons.sw_thermal_slowdown": "hot",
}
"""nvidia-smi's fields, and words for them. That a power cap holds clocks down (sw_power_cap) is everyday."""


@dataclass(frozen=True)
class Check:
    """One row. verdict: ok, warn or fail; next: what to do about it."""

    name: str
    verdict: str
    found: str
    next: str = ""


@dataclass(frozen=True)
class Gpu:
    """What nvidia-smi says of a GPU. slowed: why its clocks are held down, in nvidia-smi's words."""

    ecc_errors: int
    slowed: tuple[str, ...]
    celsius: int | None


@dataclass(frozen=True)
class Rank:
    """What one rank has found.

    gemm: operations per second. skew_s: of its clock against rank 0's. seen_s: until it saw what rank 0 wrote; None:
    never. shm: free bytes of /dev/shm. locked: bytes that it may lock, None without a limit. versions: of what has to
    be the same everywhere. nccl: variables that begin with NCCL_. interfaces: names of the network's.
    """

    rank: int
    host: str
    device: str
    local_rank: int
    cores: tuple[int, ...]
    threads: int
    versions: Mapping[str, str]
    gemm: float
    skew_s: float
    seen_s: float | None
    shm: int
    locked: int | None
    infiniband: tuple[str, ...] = ()
    nccl: Mapping[str, str] = field(default_factory=dict)
    interfaces: tuple[str, ...] = ()
    gpu: Gpu | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on one."""
        return self.device != "cpu"


@dataclass(frozen=True)
class Shared:
    """What all ranks have measured together. where: the five variables and who set them, of rank 0. folder: the one
    that rank 0 wrote to. bus: bus bandwidth in bytes per second of an all-reduce, by bytes; empty for one rank. wrong:
    its sum was not what it had to be."""

    where: str
    folder: str
    bus: Mapping[int, float]
    wrong: bool = False


def gpu_of(line: str) -> Gpu | None:
    """A row of nvidia-smi: uncorrected errors, temperature, then `Active` or not for each of SLOWDOWNS."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != 2 + len(SLOWDOWNS):
        return None
    errors, celsius = (int(cell) if re.fullmatch(r"\d+", cell) else None for cell in cells[:2])
    slowed = tuple(words for words, cell in zip(SLOWDOWNS.values(), cells[2:], strict=True) if cell == "Active")
    return Gpu(errors or 0, slowed, celsius)


def by_host(ranks: Sequence[Rank]) -> dict[str, list[Rank]]:
    """The ranks of each host, in rank order."""
    return grouped((r.host, r) for r in ranks)


def grouped(pairs: Iterable[tuple[str, Rank]]) -> dict[str, list[Rank]]:
    """Ranks by a key, in the order in which keys come."""
    found: dict[str, list[Rank]] = {}
    for key, rank in pairs:
        found.setdefault(key, []).append(rank)
    return found


def named(ranks: Sequence[Rank]) -> str:
    """`rank 3` or `ranks 0-2, 5`."""
    return f"rank{'' if len(ranks) == 1 else 's'} {ranges(sorted(r.rank for r in ranks))}"


def hosts_of(ranks: Sequence[Rank]) -> str:
    """Their hosts, by name."""
    return ", ".join(dict.fromkeys(r.host for r in ranks))


def extent(numbers: Sequence[int]) -> str:
    """`8`, or `1 to 8`."""
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def rate(flops: float) -> str:
    """Operations per second, in words."""
    return f"{flops / 1e12:.3g} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.3g} GFLOP/s"
