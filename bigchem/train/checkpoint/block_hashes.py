"""Hashes of a checkpoint's files by block, so that a part can be verified without reading the rest.

A digest is TAG and the SHA-256 of every block in hexadecimal. Without the tag it is the SHA-256 of the whole file, as
manifests of format 2 have it.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from threading import local
from typing import Any

from bigchem.base.errors import UserError

BLOCK = 4 << 20
"""Bytes. Small beside a rank's weights, of which the first and last block also hold something else."""
TAG = "sha256/4MiB:"
DIGEST = re.compile(f"{TAG}(?:[0-9a-f]{{64}})*|[0-9a-f]{{64}}")


class BlockHash:
    """Hashes a file's bytes in order. Has hashlib's methods."""

    def __init__(self) -> None:
        self._digests: list[str] = []
        self._block, self._filled = hashlib.sha256(), 0

    def update(self, data: bytes | memoryview) -> None:
        """Hashes the next bytes."""
        rest = memoryview(data)
        while rest:
            part = rest[: BLOCK - self._filled]
            self._block.update(part)  # releases the GIL
            self._filled += len(part)
            rest = rest[len(part) :]
            if self._filled == BLOCK:
                self._digests.append(self._block.hexdigest())
                self._block, self._filled = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        """The digest of the bytes so far."""
        last = [self._block.hexdigest()] if self._filled else []
        return TAG + "".join(self._digests + last)


def digest_of(path: Path) -> str:
    """A file's digest by blocks."""
    return _digest(path, BlockHash(), lambda size: None)


def has_digest(path: Path, digest: str, progress: Callable[[int], object] = lambda size: None) -> bool:
    """Whether a file has this digest, of either kind. progress: called with the bytes read since its last call."""
    return _digest(path, BlockHash() if digest.startswith(TAG) else hashlib.sha256(), progress) == digest


def _digest(path: Path, hashed: Any, progress: Callable[[int], object]) -> str:
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            hashed.update(buffer[:size])
            progress(size)
    digest: str = hashed.hexdigest()
    return digest


class Blocks:
    """Which blocks of a file are verified. digest: of the file, by blocks."""

    def __init__(self, digest: str) -> None:
        self._digests = bytes.fromhex(digest.removeprefix(TAG))
        self._verified = bytearray(len(self._digests) // 32)

    def unverified(self, start: int, stop: int) -> list[int]:
        """The blocks that hold bytes start .. stop and are not verified."""
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        return [block for block in blocks if block >= len(self._verified) or not self._verified[block]]

    def verify(self, block: int, content: memoryview) -> bool:
        """Compares a block with its hash."""
        if hashlib.sha256(content).digest() != self._digests[32 * block : 32 * (block + 1)]:
            return False
        self._verified[block] = True
        return True


_buffers = local()


def _buffer() -> memoryview:
    """This thread's buffer of a block."""
    if len(getattr(_buffers, "block", b"")) < BLOCK:
        _buffers.block = memoryview(bytearray(BLOCK))
    buffer: memoryview = _buffers.block
    return buffer


class CheckedFile(io.RawIOBase):
    """A file of a checkpoint, each block of which is verified when it is first read. `read_at` is thread-safe.

    blocks: outlives the file, which may be closed and opened again; None: nothing is verified. UserError for a block
    that differs, or a file that is too short.
    """

    def __init__(self, path: Path, blocks: Blocks | None = None) -> None:
        self._path, self._blocks, self._at = path, blocks, 0
        self._file = path.open("rb", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size

    def read_at(self, buffer: memoryview, at: int) -> None:
        """Fills a buffer of bytes from byte `at` on."""
        if self._blocks is not None and buffer:
            for block in self._blocks.unverified(at, min(at + len(buffer), self._size)):
                self._verify(self._blocks, block)
        self._read(buffer, at)

    def _verify(self, blocks: Blocks, block: int) -> None:
        """Verifies a block, whose bytes are then in the page cache. Two threads at once only do so twice."""
        content = _buffer()[: min(BLOCK, self._size - block * BLOCK)]
        self._read(content, block * BLOCK)
        if not blocks.verify(block, content):
            what = f"{self._path.name} differs from its manifest"
            raise UserError(what, str(self._path.parent), "use an earlier checkpoint")

    def _read(self, rest: memoryview, at: int) -> None:
        while rest:
            if (got := os.preadv(self._file.fileno(), [rest], at)) == 0:
                raise UserError("is truncated", str(self._path), "use another checkpoint")
            rest, at = rest[got:], at + got

    def readinto(self, buffer: Any) -> int:
        """For torch.load, which reads only the structure this way."""
        into = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
        self.read_at(into, self._at)
        self._at += len(into)
        return len(into)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """As of any file."""
        return self._at

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True
