from __future__ import annotations

import errno
import shutil
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from distributed import run_ranks
from torch import distributed as dist

from bigchem.base import atomic
from bigchem.base.errors import full_disk
from bigchem.launch.rendezvous.process_group import COLLECTIVE_TIMEOUT
from bigchem.train.collectives import on_rank0


def _raising() -> tuple[str, timedelta]:
    """The result of an unexpected error, and the timeout of a group made as DeepSpeed makes its own."""

    def fails() -> None:
        raise KeyError("manifest")

    try:
        on_rank0(fails)
    except (KeyError, RuntimeError) as error:
        message = f"{type(error).__name__}: {error}"
    group = dist.new_group([0, 1])
    return message, group._get_backend(torch.device("cpu")).options._timeout


def test_an_unexpected_error_of_rank_0_ends_all_and_groups_wait_as_long_as_the_world() -> None:
    found = run_ranks(_raising, 2, timeout=60)
    assert [message for message, _ in found] == ["KeyError: 'manifest'", "RuntimeError: rank 0: KeyError: 'manifest'"]
    assert [timeout for _, timeout in found] == [COLLECTIVE_TIMEOUT] * 2


def test_a_full_disk_is_a_mistake_that_names_the_file_and_anything_else_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space") as failed:
        atomic.write_atomically(tmp_path / "state.json", "{}")
    error = full_disk(failed.value)
    assert str(error).startswith(f"{tmp_path / 'state.json'}: no space left on the disk\nnext: make room")
    copied = shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])
    assert str(full_disk(copied)).startswith("b: no space left on the disk")
    assert full_disk(OSError(errno.EACCES, "no")) is full_disk(KeyError("x")) is full_disk(shutil.Error([])) is None
    assert not list(tmp_path.iterdir())
