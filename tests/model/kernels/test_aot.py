"""The kernels are compiled for GPUs that are not here: what the compiler reports must hold no spilled register."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

PROGRAM = """
import json, sys
from bigchem.model.kernels import aot
arch, head_dims, dtypes = int(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
for case in aot.cases(arch, tuple(head_dims), tuple(dtypes)):
    report = aot.compile_case(case, arch)
    print(json.dumps([str(case), report.registers, report.stack, report.shared, report.mma + report.wgmma]))
"""


def reports(arch: int, head_dims: list[int], dtypes: list[str]) -> list[tuple[str, int, int, int, int]]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    words = [sys.executable, "-c", PROGRAM, str(arch), json.dumps(head_dims), json.dumps(dtypes)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def check(arch: int, head_dims: list[int], dtypes: list[str], shared: int) -> None:
    found = reports(arch, head_dims, dtypes)
    assert len(found) >= 4 * 6 * len(head_dims) * len(dtypes)
    for case, _, stack, used, products in found:
        assert stack == 0, f"{case} spills {stack} bytes a thread"
        assert used <= shared, f"{case} needs {used} bytes of shared memory"
        if "fp32" not in case:
            assert products > 0, f"{case} does not use the matrix units"


@pytest.mark.parametrize(("arch", "shared"), [(80, 163 * 1024), (90, 227 * 1024)])
def test_no_kernel_of_t5_base_spills_registers(arch: int, shared: int) -> None:
    check(arch, [64], ["bf16"], shared)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "shared"), [(80, 99 * 1024), (90, 227 * 1024)])
def test_no_kernel_spills_registers(arch: int, shared: int) -> None:
    """80 with the shared memory of 8.6 and 8.9, which use its tiles."""
    check(arch, [16, 32, 64, 128], ["bf16", "fp16", "fp32"], shared)
