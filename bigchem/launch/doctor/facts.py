"""The facts that ranks collect about their machines, and how to print them. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bigchem.launch.rendezvous.members import ranges

SLOWDOWNS = {
    "clocks_throttle_reasons.hw_thermal_slowdown": "too hot",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "power brake",
    "clocks_throttle_reasons.sw_thermal_slowdown": "hot",
}
"""nvidia-smi's fields, and what they mean. Without sw_power_cap: clocks held down by a power cap are normal."""


@dataclass(frozen=True)
class Check:
    """One row. verdict: ok, warn or fail; next: what to do about it."""

    name: str
    verdict: str
    found: str
    next: str = ""


@dataclass(frozen=True)
class Gpu:
    """nvidia-smi's report on a GPU. slowed: why its clocks are held down, as in SLOWDOWNS."""

    ecc_errors: int
    slowed: tuple[str, ...]
    celsius: int | None


@dataclass(frozen=True)
class Rank:
    """One rank's measurements.

    gemm: operations per second. skew_s: its clock minus rank 0's. visible_s: until it could read rank 0's file; None:
    never. shm: free bytes of /dev/shm. locked: bytes that it may lock; None: no limit. versions: of what must be the
    same on all ranks. nccl: variables that begin with NCCL_. interfaces: names of the network interfaces.
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
    visible_s: float | None
    shm: int
    locked: int | None
    infiniband: tuple[str, ...] = ()
    nccl: Mapping[str, str] = field(default_factory=dict)
    interfaces: tuple[str, ...] = ()
    gpu: Gpu | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.device != "cpu"


@dataclass(frozen=True)
class Shared:
    """What all ranks measured together. where: rank 0's five variables and who set them. folder: the one that rank 0
    wrote to. bus: bus bandwidth of an all-reduce in bytes per second, by bytes; empty for one rank. wrong: its sum was
    wrong."""

    where: str
    folder: str
    bus: Mapping[int, float]
    wrong: bool = False


def gpu_of(line: str) -> Gpu | None:
    """Parses a row of nvidia-smi: uncorrected errors, temperature, then `Active` or not for each of SLOWDOWNS."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != 2 + len(SLOWDOWNS):
        return None
    errors, celsius = (int(cell) if re.fullmatch(r"\d+", cell) else None for cell in cells[:2])
    slowed = tuple(meaning for meaning, cell in zip(SLOWDOWNS.values(), cells[2:], strict=True) if cell == "Active")
    return Gpu(errors or 0, slowed, celsius)


def by_host(ranks: Sequence[Rank]) -> dict[str, list[Rank]]:
    """The ranks of each host, in rank order."""
    return grouped((r.host, r) for r in ranks)


def grouped(pairs: Iterable[tuple[str, Rank]]) -> dict[str, list[Rank]]:
    """Ranks by key, in the order of the keys' first appearance."""
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
    """Operations per second, with a unit."""
    return f"{flops / 1e12:.3g} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.3g} GFLOP/s"
