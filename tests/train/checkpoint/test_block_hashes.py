"""Part of a file is verified by its blocks; whole files of the former manifests still are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.train.checkpoint import block_hashes
from bigchem.train.checkpoint.block_hashes import BLOCK, TAG, BlockHash, Blocks, CheckedFile, digest_of, has_digest

SMALL = 8
"""Bytes of a block here."""


def by_hand(content: bytes, block: int) -> str:
    parts = (content[start : start + block] for start in range(0, len(content), block))
    return TAG + "".join(hashlib.sha256(part).hexdigest() for part in parts)


@given(st.lists(st.binary(max_size=3 * SMALL), max_size=6))
def test_the_pieces_that_are_hashed_do_not_matter(pieces: list[bytes]) -> None:
    with mock.patch.object(block_hashes, "BLOCK", SMALL):
        hashed = BlockHash()
        for piece in pieces:
            hashed.update(piece)
        assert hashed.hexdigest() == by_hand(b"".join(pieces), SMALL)


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1])
def test_a_file_has_its_digest_of_either_kind_and_no_other(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (path := tmp_path / "file").write_bytes(content)
    assert digest_of(path) == by_hand(content, BLOCK)
    seen: list[int] = []
    for digest in (digest_of(path), hashlib.sha256(content).hexdigest()):
        assert has_digest(path, digest, seen.append)
        assert not has_digest(path, digest.replace(digest[-1], "x"))
    assert sum(seen) == 2 * size


@given(st.binary(max_size=5 * SMALL), st.data())
def test_a_change_is_found_where_it_is_read_and_only_there(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed"
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    path.write_bytes(content[:at] + bytes(byte ^ 1 for byte in content[at : at + 1]) + content[at + 1 :])
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    buffer = bytearray(stop - start)
    with mock.patch.object(block_hashes, "BLOCK", SMALL), CheckedFile(path, Blocks(by_hand(content, SMALL))) as file:
        if start < stop and start // SMALL <= at // SMALL <= (stop - 1) // SMALL:
            with pytest.raises(UserError, match="changed differs from its manifest"):
                file.read_at(memoryview(buffer), start)
        else:
            file.read_at(memoryview(buffer), start)
            assert buffer == content[start:stop]


def test_a_block_is_hashed_once_though_the_file_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_hashes, "BLOCK", SMALL)
    (path := tmp_path / "file").write_bytes(content := os.urandom(3 * SMALL))
    blocks, verified = Blocks(by_hand(content, SMALL)), []
    monkeypatch.setattr(
        blocks, "verify", lambda block, part: verified.append(block) or Blocks.verify(blocks, block, part)
    )
    for _ in range(2):
        with CheckedFile(path, blocks) as file:
            file.read_at(memoryview(bytearray(SMALL)), 4)
    assert verified == [0, 1]


@pytest.mark.parametrize("size", [2 * SMALL - 1, 2 * SMALL + 1, 4 * SMALL])
def test_a_file_of_another_length_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(block_hashes, "BLOCK", SMALL)
    (path := tmp_path / "file").write_bytes(bytes(size))
    with CheckedFile(path, Blocks(by_hand(bytes(2 * SMALL), SMALL))) as file, pytest.raises(UserError, match="file"):
        file.read_at(memoryview(bytearray(max(size, 2 * SMALL))), 0)
