"""The host memory that a process can get, from the kernel's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigchem.train.checkpoint import host_memory

GB = 10**9


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 8 * 1024 * 10**6),
        ({"job_7/step_0": "max"}, 8 * 1024 * 10**6),
        ({"job_7": str(5 * GB), "job_7/step_0": "max"}, 5 * GB - 2 * GB + GB // 2),
        ({"job_7": str(5 * GB), "job_7/step_0": str(GB)}, 0),
        ({"job_8": str(GB)}, 8 * 1024 * 10**6),
    ],
    ids=["none", "no limit", "of the job", "used up", "of another job"],
)
def test_the_strictest_limit_around_the_process_counts(tmp_path: Path, limits: dict[str, str], expected: int) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "meminfo", "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n")
    write(proc / "self/cgroup", "0::/job_7/step_0\n")
    for name, limit in limits.items():
        write(cgroups / name / "memory.max", f"{limit}\n")
        write(cgroups / name / "memory.current", f"{2 * GB}\n")
        write(cgroups / name / "memory.stat", f"anon 7\ninactive_file {GB // 2}\n")
    assert host_memory.available(proc, cgroups) == expected


def test_memory_is_unknown_where_the_kernel_has_no_such_files(tmp_path: Path) -> None:
    assert host_memory.available(tmp_path, tmp_path) is None
