"""Checkpoint files are hashed as they are written, and never unpickled."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from bigchem.errors import UserError
from bigchem.train.files import Files, HashedFile
from bigchem.train.zero_files import load_safely


@pytest.mark.parametrize("sizes", [[], [1], [3, 10_000_000, 5]])
def test_size_and_hash_are_those_of_the_file(tmp_path: Path, sizes: list[int]) -> None:
    path = tmp_path / "file"
    with HashedFile(path) as file:
        for size in sizes:
            assert file.write(os.urandom(size)) == size
    content = path.read_bytes()
    assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert len(content) == sum(sizes)


def test_a_file_is_on_the_disk_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_ino, path.stat().st_size))
    )
    path = tmp_path / "file"
    with HashedFile(path) as file:
        file.write(bytes(1000))
        assert synced == []
    assert synced == [(path.stat().st_ino, 1000)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_remembered_and_the_rest_is_not_written(tmp_path: Path) -> None:
    files = Files([])
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
    files = Files(["w"])
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
