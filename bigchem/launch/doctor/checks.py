"""Judges a job's machines from its ranks' measurements. Pure."""

from collections.abc import Sequence
from statistics import median

from bigchem.launch.doctor.facts import Check, Rank, Shared, by_host, extent, grouped, hosts_of, named, rate

SLOW, BROKEN = 0.85, 0.5
"""Shares of the median speed below which a rank is a warning, and below which a GPU fails: equal GPUs differ by a few
per cent. Ranks on CPUs share their cores with others: they are a warning only below the second."""
MIN_BUS_GBPS = 10.0
"""Between GPUs: a 100 Gb/s network gives 12, PCIe 4.0 about 20, NVLink hundreds."""
MAX_SKEW_S = 1.0
SLOW_FOLDER_S = 2.0
MIN_SHM_GB = 1.0
"""NCCL and torch's workers share memory there; Docker gives 64 MB by default."""
SHM = "/dev/shm"  # noqa: S108 - the name of a check
MIN_LOCKED = 1 << 30


def judge(ranks: Sequence[Rank], shared: Shared) -> list[Check]:
    """Every check of a job."""
    return [
        Check("rendezvous", "ok", shared.where),
        _hosts(ranks),
        _versions(ranks),
        _folder(ranks, shared.folder),
        _clocks(ranks),
        _cores(ranks),
        _gemm(ranks),
        _all_reduce(ranks, shared),
        _shm(ranks),
        _locked(ranks),
        _gpus(ranks),
        _nccl(ranks),
    ]


def _hosts(ranks: Sequence[Rank]) -> Check:
    hosts = by_host(ranks)
    shown = "; ".join(f"{host}: {named(found)}" for host, found in list(hosts.items())[:8])
    more = f"; {len(hosts) - 8} more" if len(hosts) > 8 else ""
    uneven = len({len(found) for found in hosts.values()}) > 1
    hint = "nodes have different numbers of ranks: is that intended?" if uneven else ""
    return Check("hosts", "warn" if uneven else "ok", f"{shown}{more}", hint)


def _versions(ranks: Sequence[Rank]) -> Check:
    differing = [name for name in ranks[0].versions if len({r.versions.get(name) for r in ranks}) > 1]
    if not differing:
        return Check(
            "versions", "ok", "the same on all: " + ", ".join(f"{k} {v}" for k, v in ranks[0].versions.items())
        )
    name = differing[0]
    groups = grouped((r.versions.get(name, "none"), r) for r in ranks)
    shown = "; ".join(f"{version}: {named(found)}" for version, found in groups.items())
    return Check(
        "versions", "fail", f"{name} differs: {shown}", "use one environment, on a file system that all nodes share"
    )


def _folder(ranks: Sequence[Rank], folder: str) -> Check:
    blind = [r for r in ranks if r.visible_s is None]
    if blind:
        what = f"{folder}: {named(blind)} on {hosts_of(blind)} cannot read what rank 0 wrote"
        return Check("shared folder", "fail", what, "runs must be on a file system that all nodes share (--runs)")
    slowest = max(ranks, key=lambda r: r.visible_s or 0.0)
    found = f"{folder}: visible to all within {slowest.visible_s:.2f} s"
    if (slowest.visible_s or 0.0) > SLOW_FOLDER_S:
        return Check(
            "shared folder", "warn", f"{found} (rank {slowest.rank}, {slowest.host})", "the file system is slow"
        )
    return Check("shared folder", "ok", found)


def _clocks(ranks: Sequence[Rank]) -> Check:
    farthest = max(ranks, key=lambda r: abs(r.skew_s))
    found = f"within {abs(farthest.skew_s):.3f} s of rank 0's"
    if abs(farthest.skew_s) > MAX_SKEW_S:
        what = f"{farthest.host} is {farthest.skew_s:+.1f} s from {ranks[0].host}"
        return Check("clocks", "warn", what, "ages and times in logs are wrong: run chrony or ntpd on the nodes")
    return Check("clocks", "ok", found)


def _cores(ranks: Sequence[Rank]) -> Check:
    shared = [
        r
        for found in by_host(ranks).values()
        for r in found
        if any(neighbour is not r and set(neighbour.cores) & set(r.cores) for neighbour in found)
    ]
    counts, threads = [len(r.cores) for r in ranks], [r.threads for r in ranks]
    found = f"{extent(counts)} per rank, threads {extent(threads)}"
    alone = [r for r in ranks if r.on_gpu and len(r.cores) == 1]
    if alone:
        hint = "set cpus_per_task in the cluster profile; by hand: srun --cpus-per-task"
        return Check("cores", "warn", f"{named(alone)} may run on one core only", hint)
    if shared and any(r.on_gpu for r in ranks):
        hint = "set cpus_per_task, and srun_args = ['--cpu-bind=cores'] where the cluster can bind"
        return Check("cores", "warn", f"{found}; {named(shared)} share theirs", hint)
    return Check("cores", "ok", f"{found}; shared" if shared else f"{found}; none shared")


def _gemm(ranks: Sequence[Rank]) -> Check:
    typical, on_gpu = median(r.gemm for r in ranks), ranks[0].on_gpu
    slowest = min(ranks, key=lambda r: r.gemm)
    found = f"{rate(typical)} per rank, slowest {rate(slowest.gemm)} (rank {slowest.rank})"
    slow = [r for r in ranks if r.gemm < (SLOW if on_gpu else BROKEN) * typical]
    if not slow:
        return Check("gemm", "ok", found)
    verdict = "fail" if on_gpu and slowest.gemm < BROKEN * typical else "warn"
    share = round(100 * (1 - slowest.gemm / typical))
    what = f"{found}: {named(slow)} on {hosts_of(slow)} up to {share} % under the median"
    return Check("gemm", verdict, what, "all ranks wait for the slowest: exclude its node (sbatch --exclude)")


def _all_reduce(ranks: Sequence[Rank], shared: Shared) -> Check:
    if shared.wrong:
        return Check("all-reduce", "fail", "the sum over ranks is wrong", "a GPU or a link computes wrongly: see gpus")
    if not shared.bus:
        return Check("all-reduce", "ok", "one rank")
    found = ", ".join(f"{size / 1e6:.3g} MB: {speed / 1e9:.3g} GB/s" for size, speed in shared.bus.items())
    if ranks[0].on_gpu and max(shared.bus.values()) < MIN_BUS_GBPS * 1e9:
        hint = "NCCL_DEBUG=INFO shows what NCCL uses: NET/IB or P2P, or the slow NET/Socket"
        return Check("all-reduce", "warn", f"{found} (bus)", hint)
    return Check("all-reduce", "ok", f"{found} (bus)")


def _shm(ranks: Sequence[Rank]) -> Check:
    least = min(ranks, key=lambda r: r.shm)
    free = f"{least.shm / 1e9:.2g} GB free"
    if least.shm < MIN_SHM_GB * 1e9:
        return Check(SHM, "warn", f"{free} on {least.host}", "give the container more: --shm-size=8g")
    return Check(SHM, "ok", f"{free} or more")


def _locked(ranks: Sequence[Rank]) -> Check:
    devices = sorted({device for r in ranks for device in r.infiniband})
    if not devices:
        return Check("ulimit -l", "ok", "no InfiniBand here")
    limited = [r for r in ranks if r.infiniband and r.locked is not None and r.locked < MIN_LOCKED]
    if limited:
        what = f"{(limited[0].locked or 0) // 1024} kB on {hosts_of(limited)}, with InfiniBand ({', '.join(devices)})"
        return Check("ulimit -l", "fail", what, "setup = ['ulimit -l unlimited'], or have the nodes' slurmd set it")
    return Check("ulimit -l", "ok", f"enough for InfiniBand ({', '.join(devices)})")


def _gpus(ranks: Sequence[Rank]) -> Check:
    known = [r for r in ranks if r.gpu is not None]
    if not known:
        if not ranks[0].on_gpu:
            return Check("gpus", "ok", "none")
        return Check("gpus", "warn", "nvidia-smi does not answer", "memory errors and throttling are unknown")
    erring = [r for r in known if r.gpu and r.gpu.ecc_errors]
    if erring:
        what = f"uncorrected memory errors: {named(erring)} on {hosts_of(erring)}"
        return Check("gpus", "fail", what, "results may be wrong: exclude the node and have the GPU reset")
    slowed = [r for r in known if r.gpu and r.gpu.slowed]
    hottest = max(r.gpu.celsius or 0 for r in known if r.gpu)
    if slowed and slowed[0].gpu:
        what = f"{named(slowed)} on {hosts_of(slowed)} slowed: {', '.join(slowed[0].gpu.slowed)}; {hottest} C"
        return Check("gpus", "warn", what, "cooling or power: tell your administrators")
    return Check(
        "gpus", "ok", f"{', '.join(sorted({r.device for r in ranks}))}: no memory errors, not slowed, {hottest} C"
    )


def _nccl(ranks: Sequence[Rank]) -> Check:
    first = ranks[0].nccl
    shown = " ".join(f"{name}={value}" for name, value in sorted(first.items())) or "no NCCL_ variables"
    differing = [r for r in ranks if dict(r.nccl) != dict(first)]
    if differing:
        return Check("nccl", "warn", f"{shown}; other values on {named(differing)}", "set them in the profile's [env]")
    for r in ranks:
        if missing := absent_interface(r.nccl.get("NCCL_SOCKET_IFNAME", ""), r.interfaces):
            what = f"NCCL_SOCKET_IFNAME names {missing}, {r.host} has {', '.join(r.interfaces)}"
            return Check("nccl", "fail", what, "fix NCCL_SOCKET_IFNAME in the profile's [env]")
    off = [name for name in ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "NCCL_SHM_DISABLE") if first.get(name) == "1"]
    if off and ranks[0].on_gpu:
        return Check("nccl", "warn", shown, f"{off[0]}=1 makes NCCL use a slower path: is that intended?")
    return Check("nccl", "ok", shown)


def absent_interface(wanted: str, interfaces: Sequence[str]) -> str | None:
    """A value of NCCL_SOCKET_IFNAME if it matches no interface: prefixes, `=` for exact names, `^` for exclusions."""
    if not wanted or wanted.startswith("^"):
        return None
    exact = wanted.startswith("=")
    names = wanted.lstrip("=").split(",")
    hit = any(name == i if exact else i.startswith(name) for name in names for i in interfaces)
    return None if hit else wanted
