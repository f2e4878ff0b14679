"""Verdicts on ranks' measurements, without any machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bigchem.launch.doctor.checks import absent_interface, judge
from bigchem.launch.doctor.facts import SLOWDOWNS, Check, Gpu, Rank, Shared, gpu_of

VERSIONS = {"torch": "2.13.0", "code": "1234abcd"}
HEALTHY = Gpu(0, (), 41)
BUS = {1 << 20: 60e9, 1 << 29: 380e9}
SHARED = Shared("RANK=0, from slurm", "/runs", BUS)


def ranks(**changes: dict[int, Any]) -> list[Rank]:
    """Two nodes of four healthy H100; field={rank: value} changes some."""
    found = [
        Rank(
            rank=rank,
            host=f"gpu{rank // 4 + 1:02d}",
            device="NVIDIA H100",
            local_rank=rank % 4,
            cores=tuple(range(12 * (rank % 4), 12 * (rank % 4) + 12)),
            threads=12,
            versions=VERSIONS,
            gemm=600e12 + rank * 1e12,
            skew_s=0.001 * rank,
            visible_s=0.05,
            shm=100 * 10**9,
            locked=None,
            infiniband=("mlx5_0",),
            nccl={"NCCL_DEBUG": "WARN"},
            interfaces=("lo", "eth0", "ib0"),
            gpu=HEALTHY,
        )
        for rank in range(8)
    ]
    for name, values in changes.items():
        for rank, value in values.items():
            found[rank] = replace(found[rank], **{name: value})
    return found


def check(name: str, found: list[Rank], shared: Shared = SHARED) -> Check:
    return next(check for check in judge(found, shared) if check.name == name)


def test_healthy_nodes_pass_every_check_with_figures() -> None:
    checks = judge(ranks(), SHARED)
    assert {c.verdict for c in checks} == {"ok"}
    shown = {c.name: c.found for c in checks}
    assert shown["hosts"] == "gpu01: ranks 0-3; gpu02: ranks 4-7"
    assert shown["gemm"] == "604 TFLOP/s per rank, slowest 600 TFLOP/s (rank 0)"
    assert shown["all-reduce"] == "1.05 MB: 60 GB/s, 537 MB: 380 GB/s (bus)"
    assert shown["gpus"] == "NVIDIA H100: no memory errors, not slowed, 41 C"
    assert shown["cores"] == "12 per rank, threads 12; none shared"


EVERY = range(8)


@pytest.mark.parametrize(
    ("name", "changes", "verdict", "shown"),
    [
        ("hosts", {"host": {7: "gpu03"}}, "warn", "gpu02: ranks 4-6; gpu03: rank 7"),
        ("versions", {"versions": {5: {**VERSIONS, "code": "ffff"}}}, "fail", "code differs: 1234abcd: ranks 0-4, 6-7"),
        ("versions", {"versions": {5: {"code": "1234abcd"}}}, "fail", "torch differs: 2.13.0: ranks 0-4, 6-7; none"),
        ("shared folder", {"visible_s": {4: None, 5: None}}, "fail", "ranks 4-5 on gpu02 cannot read"),
        ("shared folder", {"visible_s": {6: 4.5}}, "warn", "visible to all within 4.50 s (rank 6, gpu02)"),
        ("clocks", {"skew_s": {4: -3.0}}, "warn", "gpu02 is -3.0 s from gpu01"),
        ("cores", {"cores": {1: (12,)}}, "warn", "rank 1 may run on one core only"),
        ("cores", {"cores": {1: tuple(range(12))}}, "warn", "ranks 0-1 share theirs"),
        ("cores", {"threads": {3: 6}}, "ok", "threads 6 to 12"),
        ("gemm", {"gemm": {6: 480e12}}, "warn", "rank 6 on gpu02 up to 20 % under the median"),
        ("gemm", {"gemm": {6: 80e12}}, "fail", "rank 6 on gpu02"),
        ("gemm", {"gemm": {6: 580e12}}, "ok", "slowest 580 TFLOP/s (rank 6)"),
        ("/dev/shm", {"shm": {2: 64 * 10**6}}, "warn", "0.064 GB free on gpu01"),  # noqa: S108
        ("ulimit -l", {"locked": {4: 65536}}, "fail", "64 kB on gpu02, with InfiniBand (mlx5_0)"),
        ("ulimit -l", {"locked": dict.fromkeys(EVERY, 65536), "infiniband": dict.fromkeys(EVERY, ())}, "ok", "no Inf"),
        ("gpus", {"gpu": {3: Gpu(2, (), 40)}}, "fail", "uncorrected memory errors: rank 3 on gpu01"),
        ("gpus", {"gpu": {3: Gpu(0, ("too hot",), 91)}}, "warn", "rank 3 on gpu01 slowed: too hot; 91 C"),
        ("gpus", {"gpu": dict.fromkeys(EVERY)}, "warn", "nvidia-smi does not answer"),
        ("nccl", {"nccl": {7: {}}}, "warn", "NCCL_DEBUG=WARN; other values on rank 7"),
        ("nccl", {"nccl": {r: {"NCCL_SOCKET_IFNAME": "eno"} for r in EVERY}}, "fail", "gpu01 has lo, eth0, ib0"),
        ("nccl", {"nccl": {r: {"NCCL_IB_DISABLE": "1"} for r in EVERY}}, "warn", "NCCL_IB_DISABLE=1"),
    ],
)
def test_what_is_wrong_is_told_with_rank_host_and_figure(
    name: str, changes: dict[str, dict[int, Any]], verdict: str, shown: str
) -> None:
    found = check(name, ranks(**changes))
    assert (found.verdict, shown in found.found) == (verdict, True), found
    assert verdict == "ok" or found.next


@pytest.mark.parametrize(
    ("shared", "verdict", "shown"),
    [
        (replace(SHARED, bus={1 << 29: 2.5e9}), "warn", "537 MB: 2.5 GB/s"),
        (replace(SHARED, wrong=True), "fail", "the sum over ranks is wrong"),
        (replace(SHARED, bus={}), "ok", "one rank"),
    ],
)
def test_the_network_is_judged_by_what_it_gives(shared: Shared, verdict: str, shown: str) -> None:
    found = check("all-reduce", ranks(), shared)
    assert (found.verdict, shown in found.found) == (verdict, True)


def test_on_cpus_speeds_are_told_and_only_half_the_speed_is_an_outlier() -> None:
    cpus = [replace(r, device="cpu", gpu=None, gemm=100e9, cores=(0, 1)) for r in ranks()]
    shared = replace(SHARED, bus={1 << 20: 0.2e9})
    assert {c.verdict for c in judge(cpus, shared)} == {"ok"}
    assert check("gemm", [*cpus[:7], replace(cpus[7], gemm=70e9)]).verdict == "ok"
    slow = check("gemm", [*cpus[:7], replace(cpus[7], gemm=10e9)])
    assert (slow.verdict, "slowest 10 GFLOP/s (rank 7)" in slow.found) == ("warn", True)


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [
        ("", None),
        ("ib", None),
        ("=ib0", None),
        ("=ib", "=ib"),
        ("eno1,eth", None),
        ("eno1", "eno1"),
        ("^lo", None),
    ],
)
def test_an_interface_that_is_not_there_is_found_out(wanted: str, missing: str | None) -> None:
    assert absent_interface(wanted, ["lo", "eth0", "ib0"]) == missing


@pytest.mark.parametrize(
    ("line", "gpu"),
    [
        ("0, 38, Not Active, Not Active, Not Active", Gpu(0, (), 38)),
        ("2, 91, Active, Not Active, Active", Gpu(2, ("too hot", "hot"), 91)),
        ("[N/A], 38, Not Active, Not Active, [N/A]", Gpu(0, (), 38)),
        ("No devices were found", None),
        ("", None),
    ],
)
def test_a_row_of_nvidia_smi_is_read(line: str, gpu: Gpu | None) -> None:
    assert len(SLOWDOWNS) == 3
    assert gpu_of(line) == gpu
