"""Host memory that this process can still get."""

import re
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes: what the kernel calls available, or less if a cgroup (version 2, as Slurm's jobs have) leaves less; None
    where neither is known (macOS)."""
    found = [room for group in _cgroups(proc, cgroups) if (room := _room(group)) is not None]
    if (free := re.search(r"^MemAvailable:\s+(\d+) kB", _read(proc / "meminfo"), re.MULTILINE)) is not None:
        found.append(1024 * int(free[1]))
    return min(found, default=None)


def _cgroups(proc: Path, cgroups: Path) -> list[Path]:
    """This process's cgroup and those around it."""
    own = re.search(r"^0::/(.*)$", _read(proc / "self/cgroup"), re.MULTILINE)
    if own is None:
        return []
    inner = cgroups / own[1]
    return [inner, *(folder for folder in inner.parents if folder.is_relative_to(cgroups))]


def _room(cgroup: Path) -> int | None:
    """Bytes up to the limit of a cgroup, where the cached files that nobody uses count as free. None: no limit."""
    limit, used = _read(cgroup / "memory.max").strip(), _read(cgroup / "memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return None
    cached = re.search(r"^inactive_file (\d+)$", _read(cgroup / "memory.stat"), re.MULTILINE)
    return max(0, int(limit) - int(used) + (int(cached[1]) if cached else 0))


def _read(path: Path) -> str:
    """A file of the kernel's; empty if there is none."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
