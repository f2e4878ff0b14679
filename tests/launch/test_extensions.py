"""DeepSpeed's compiled operations: which are left out, and how the others are built once and found by all."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed import run_ranks


def _start() -> tuple[bool, float]:
    """Whether DeepSpeed has its operation for shared memory, and a sum over ranks by DeepSpeed's own collectives."""
    import torch
    from deepspeed import comm

    total = torch.tensor([comm.get_rank() + 1.0])
    comm.all_reduce(total)
    return comm.comm.cdb.shm_comm_op is not None, float(total)


def test_ranks_on_cpus_start_with_nothing_to_compile_with_and_compile_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds, empty = tmp_path / "builds", tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(builds))
    monkeypatch.setenv("PATH", str(empty))
    assert run_ranks(_start, 2) == [(False, 3.0), (False, 3.0)]
    assert not builds.exists()
