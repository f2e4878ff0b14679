"""What `bigchem doctor --job` measures on all ranks of a job together, and its short form before step 1."""

import os
import platform
import resource
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

import bigchem
from bigchem.base.errors import UserError
from bigchem.launch.cluster.snapshot import planned
from bigchem.launch.doctor.checks import SHM, judge
from bigchem.launch.doctor.facts import SLOWDOWNS, Check, Gpu, Rank, Shared, gpu_of
from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.members import card_of
from bigchem.train.collectives import gathered, on_rank0, say

NVIDIA_SMI_TIMEOUT_S = 20
REQUIRED = ("versions", "shared folder")
"""Checks that must pass before a run begins: else its ranks would run different code, or in different folders."""


@dataclass(frozen=True)
class Effort:
    """How much to measure. sides: of the square matrices, on a CPU and a GPU. gemm_s: time spent on products. sizes:
    bytes of the all-reduce, on a CPU and a GPU. folder_s: timeout for the file system. smi: call nvidia-smi."""

    sides: tuple[int, int]
    gemm_s: float
    sizes: tuple[tuple[int, ...], tuple[int, ...]]
    folder_s: float
    smi: bool


FULL = Effort((1024, 8192), 1.0, ((1 << 20, 1 << 24), (1 << 20, 1 << 26, 1 << 29)), 30.0, smi=True)
SHORT = Effort((512, 4096), 0.05, ((1 << 20,), (1 << 26,)), 30.0, smi=False)


def examine_job(
    place: Rendezvous, device: torch.device, folder: Path, effort: Effort = FULL
) -> tuple[list[Check], list[Rank]]:
    """Measures and judges. Every rank calls it with the process group up, and gets the same result. folder: one that
    all ranks must see."""
    on_gpu = device.type == "cuda"
    bus, wrong = _all_reduce(effort.sizes[on_gpu], device)
    visible = _visible_after(folder, effort.folder_s)
    dist.barrier()
    gemm = _gemm(effort.sides[on_gpu], effort.gemm_s, device)
    dist.barrier()
    now = time.time()
    clocks = gathered(now)
    card = card_of(place)
    mine = Rank(
        rank=place.rank,
        host=card.host,
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        local_rank=place.local_rank,
        cores=tuple(card.cores),
        threads=torch.get_num_threads(),
        versions=_versions(),
        gemm=gemm,
        skew_s=now - clocks[0],
        visible_s=visible,
        shm=shutil.disk_usage(SHM).free if Path(SHM).is_dir() else 0,
        locked=_locked(),
        infiniband=_names(Path("/sys/class/infiniband")),
        nccl={name: value for name, value in os.environ.items() if name.startswith("NCCL_")},
        interfaces=tuple(name for _, name in socket.if_nameindex()),
        gpu=_gpu(device) if on_gpu and effort.smi else None,
    )
    ranks = gathered(mine)
    five = " ".join(f"{name}={value}" for name, value in place.variables(int(os.environ["MASTER_PORT"])).items())
    checks = judge(ranks, Shared(f"{five}, from {place.launcher}", str(folder), bus, wrong))
    if not effort.smi:
        checks = [check for check in checks if check.name != "gpus"]
    agreed: list[Check] = on_rank0(lambda: checks)  # rank 0's variables, not each its own
    return agreed, ranks


def before_step_1(place: Rendezvous, device: torch.device, run_dir: Path) -> None:
    """The short form: one line from rank 0, and one for each check that is not ok. UserError if ranks run different
    code, or see different folders under the run's name."""
    begun = time.monotonic()
    checks, _ = examine_job(place, device, run_dir, SHORT)
    found = {check.name: check.found for check in checks}
    seconds = time.monotonic() - begun
    say(f"doctor: {found['hosts']}; {found['gemm']}; all-reduce {found['all-reduce']}; in {seconds:.1f} s")
    for check in checks:
        if check.verdict != "ok":
            say(
                f"doctor: {check.verdict}: {check.name}: {check.found}"
                + (f"; next: {check.next}" if check.next else "")
            )
    for check in checks:
        if check.verdict == "fail" and check.name in REQUIRED:
            raise UserError(check.found, check.name, check.next)


def _all_reduce(sizes: tuple[int, ...], device: torch.device) -> tuple[dict[int, float], bool]:
    """Bus bandwidth by size, as nccl-tests defines it: 2 (n - 1) / n of the bytes, over the slowest rank's time; and
    whether a sum was wrong."""
    n, wrong = dist.get_world_size(), False
    bus: dict[int, float] = {}
    for size in sizes if n > 1 else ():
        value = torch.full((size // 4,), float(dist.get_rank() + 1), device=device)
        dist.all_reduce(value)  # untimed: it connects, and its sum is checked
        wrong |= bool((value != n * (n + 1) / 2).any())
        value.zero_()
        times = []
        for _ in range(5):
            _wait(device)
            dist.barrier()
            begun = time.perf_counter()
            dist.all_reduce(value)
            _wait(device)
            times.append(time.perf_counter() - begun)
        bus[size] = 2 * (n - 1) / n * size / max(gathered(median(times)))
    return bus, any(gathered(wrong))


def _gemm(side: int, seconds: float, device: torch.device) -> float:
    """Operations per second of a product of square matrices: bf16 on a GPU, fp32 on a CPU; the median of at least five.
    The numbers are random, as a GPU draws less power, and so runs faster, on equal ones; from a separate generator."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator(device=device).manual_seed(0)
    a = torch.randn(side, side, device=device, dtype=dtype, generator=generator)
    out = a @ a
    times: list[float] = []
    while sum(times) < seconds or len(times) < 5:
        _wait(device)
        begun = time.perf_counter()
        torch.mm(a, a, out=out)
        _wait(device)
        times.append(time.perf_counter() - begun)
    return float(2 * side**3 / median(times))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _visible_after(folder: Path, timeout_s: float) -> float | None:
    """Seconds until this rank could read a file that rank 0 had written; None: not within timeout_s."""

    def write() -> tuple[str, str]:
        folder.mkdir(parents=True, exist_ok=True)
        name, token = f".probe-{secrets.token_hex(4)}", secrets.token_hex(16)  # a new name is in no client's cache
        (folder / name).write_text(token, encoding="ascii")
        return name, token

    name, token = on_rank0(write)
    begun = time.monotonic()
    visible = None
    while visible is None and time.monotonic() - begun < timeout_s:
        with suppress(OSError):
            if (folder / name).read_text(encoding="ascii") == token:
                visible = time.monotonic() - begun
                break
        time.sleep(0.02)
    dist.barrier()
    on_rank0((folder / name).unlink)
    return visible


def _versions() -> dict[str, str]:
    import deepspeed

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "deepspeed": str(deepspeed.__version__),
        "bigchem": bigchem.__version__,
        "code": planned(Path()).name,  # of a snapshot of it
    }


def _locked() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ()


def _gpu(device: torch.device) -> Gpu | None:
    fields = ",".join(("ecc.errors.uncorrected.volatile.total", "temperature.gpu", *SLOWDOWNS))
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "-i", uuid]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return gpu_of(result.stdout.strip()) if result.returncode == 0 else None
