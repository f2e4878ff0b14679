"""Freed memory leaves the process, measured in a separate one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

RETAINED = """
import sys
from contextlib import nullcontext
from pathlib import Path
from bigchem.export.heap import return_freed_memory

MB = 2**20

def used():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

with return_freed_memory() if sys.argv[1] == "returned" else nullcontext():
    for size in range(1, 9):
        bytearray(size * MB)
    before = used()
    blocks = [bytes([number]) * (4 * MB) for number in range(8)]
    above = b"8" * (2 * MB)
    assert used() - before > 32 * MB  # the rest may fit into free memory
    del blocks
    print(used() - before)
"""


def retained(mode: str) -> int:
    """Bytes that stay in a process after it frees 32 MiB and still uses 2 MiB above them."""
    done = subprocess.run([sys.executable, "-c", RETAINED, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.thorough
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_glibc_keeps_of_freed_blocks_is_returned() -> None:
    assert retained("plain") > 16 * 2**20  # else there is nothing to fix
    assert retained("returned") < 3 * 2**20
