"""Checkpoint files are hashed as they are written, and loaded without unpickling."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.train.checkpoint import hashed_file
from bigchem.train.checkpoint.ds_checkpoint_engine import BigchemCheckpointEngine
from bigchem.train.checkpoint.hashed_file import BUFFER, O_DIRECT, HashedFile, Staging
from bigchem.train.checkpoint.torch_zip import load_safely


def check(path: Path, parts: list[bytes], *, direct: bool) -> None:
    with HashedFile(path, hashlib.sha256(), direct=direct) as file:
        for part in parts:
            assert file.write(part) == len(part)
    content = path.read_bytes()
    assert content == b"".join(parts)
    assert (file.size, file.digest) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("sizes", [[], [1], [BUFFER], [3, 4 * BUFFER, 5]])
def test_size_and_hash_are_those_of_the_file(tmp_path: Path, sizes: list[int], direct: bool) -> None:
    check(tmp_path / "file", [os.urandom(size) for size in sizes], direct=direct)


@given(sizes=st.lists(st.integers(0, 5 * mmap.PAGESIZE) | st.sampled_from([2 * mmap.PAGESIZE]), max_size=8))
def test_whatever_the_pieces_the_file_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces"
    with mock.patch.object(hashed_file, "BUFFER", 2 * mmap.PAGESIZE):
        check(path, [os.urandom(size) for size in sizes], direct=True)


@pytest.mark.skipif(not O_DIRECT, reason="the system has no O_DIRECT")
@pytest.mark.parametrize("refuses", ["open", "write"])
def test_a_file_system_that_refuses_o_direct_gets_plain_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    plainly, refused = getattr(os, refuses), []

    def refusing(first: int | Path, *rest: object) -> object:
        flags = rest[0] if refuses == "open" else hashed_file.fcntl.fcntl(first, hashed_file.fcntl.F_GETFL)
        if isinstance(flags, int) and flags & O_DIRECT:
            refused.append(first)
            raise OSError(errno.EINVAL, "Invalid argument")
        return plainly(first, *rest)

    monkeypatch.setattr(os, refuses, refusing)
    check(tmp_path / "file", [os.urandom(3 * BUFFER + 7)], direct=True)
    assert len(refused) == 1


def test_a_file_is_on_the_disk_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_ino, path.stat().st_size))
    )
    path = tmp_path / "file"
    with HashedFile(path, hashlib.sha256()) as file:
        file.write(bytes(1000))
        assert synced == []
    assert synced == [(path.stat().st_ino, 1000)]


def test_a_staged_file_is_written_when_it_is_finished_from_memory_that_the_next_one_uses(tmp_path: Path) -> None:
    staging, content = Staging(), os.urandom(2 * BUFFER + 7)
    for name, whole in (("first", True), ("second", True), ("abandoned", False)):
        with HashedFile(tmp_path / name, hashlib.sha256(), staging=staging) as file:
            file.write(content)
        assert (tmp_path / name).stat().st_size == 0
        if whole:
            file.finish()
            assert (tmp_path / name).read_bytes() == content
            assert (file.size, file.digest) == (len(content), hashlib.sha256(content).hexdigest())
        else:
            file.abandon()
            with pytest.raises(OSError, match="canceled"):
                file.finish()
        assert len(staging.free) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_remembered_and_the_rest_is_not_written(tmp_path: Path) -> None:
    files = BigchemCheckpointEngine([])
    (tmp_path / "a.pt").symlink_to("/dev/full")
    files.save({"module": {"w": torch.zeros(10_000)}}, str(tmp_path / "a.pt"))
    assert isinstance(files.error, OSError)
    assert files.error.strerror == "No space left on device"
    assert not files.ours
    files.save({}, str(tmp_path / "b.pt"))
    assert not (tmp_path / "b.pt").exists()
    files.begin()
    files.save({}, str(tmp_path / "b.pt"))
    assert files.written.keys() == {tmp_path / "b.pt"}


def test_weights_that_the_optimizer_holds_are_written_once(tmp_path: Path) -> None:
    files = BigchemCheckpointEngine(["w"])
    files.save({"module": {"w": torch.zeros(10_000), "buffer": torch.ones(2)}, "x": 3}, str(tmp_path / "a.pt"))
    table = files.load(str(tmp_path / "a.pt"))
    assert table["module"].keys() == {"buffer"}
    assert table["x"] == 3


def test_what_a_file_would_execute_is_not_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"x": Hostile()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="cannot load safely"):
        load_safely(tmp_path / "a.pt")
    assert not (tmp_path / "executed").exists()
